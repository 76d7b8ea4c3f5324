"""What `bench` found, for people: a table, and time against length as a picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.board.tables import Column, Note, Section, as_markdown, cell, lines, name_column, print_section
from harness.records.files import to_json
from zoo.files import write

Row = dict[str, Any]


def _column(title: str, key: str, text: str, scale: float = 1) -> Column:
    def written(row: Row) -> Any:
        return None if row[key] is None else scale * row[key]

    return Column(title, lambda row: cell(written(row), text.format))


COLUMNS = (
    _column("train tok/s", "train_tokens_per_s", "{:,.0f}"),
    _column("±", "train_spread", "{:.0%}"),
    _column("× reference", "relative_speed", "{:,.2f}"),
    _column("of peak", "fraction_of_peak", "{:.0%}"),
    _column("prefill", "prefill_tokens_per_s", "{:,.0f}"),
    _column("ms/token", "decode_ms_per_token", "{:,.2f}"),
    _column("state kB", "state_bytes", "{:,.1f}", 1e-3),
    _column("peak MB", "peak_memory_bytes", "{:,.0f}", 1e-6),
    _column("t ~ Tᵃ", "time_slope", "{:,.2f}"),
    _column("mem", "memory_slope", "{:,.2f}"),
)
"""Of the table of all rows; a column without a number is left out."""
UNEQUAL = "not the same size"
PEERS = (
    name_column(lambda peer: peer["ours"], "ours"),
    name_column(lambda peer: f"{peer['peer']} {peer['version']}", "peer"),
    _column("params", "params_mismatch", "{:+.1%}"),
    _column("tok/s", "peer_train_tokens_per_s", "{:,.0f}"),
    _column("peak MB", "peer_peak_memory_bytes", "{:,.0f}", 1e-6),
    Column("× as fast", lambda p: cell(p["ratio"], "{:,.2f}".format) if p["comparable"] else cell(UNEQUAL, str)),
    _column("× memory", "memory_ratio", "{:,.2f}"),
)


def name(row: Row) -> str:
    """`mamba 256×8`, with the role where it is not language modelling."""
    role = "" if row["role"] == "lm" else f" {row['role']}"
    return f"{row['architecture']} {row['length']}×{row['batch']}{role}"


def line(row: Row) -> str:
    """A row in one line, as progress."""
    if row["status"] != "ok":
        return f"{name(row)}: {row['status']}: {row['reason']}"
    peers = "".join(f", {p['ratio']:.2f} × {p['peer']}" for p in row.get("peers", []))
    return f"{name(row)} {row['precision']}: {row['train_tokens_per_s']:,.0f} tokens/s in training{peers}"


def sections(rows: list[Row]) -> list[Section]:
    """The table of all rows, that of their peers, and notes, each if there is anything in it."""
    good = [row for row in rows if row["status"] == "ok"]
    peers = [{"ours": name(row), **peer} for row in good for peer in row.get("peers", [])]
    found = []
    if good:
        columns = [name_column(name), *(c for c in COLUMNS if any(c.cell(row).value is not None for row in good))]
        reference = next((row["reference"] for row in good if row["reference"]), "reference")
        columns = [replace(column, title=column.title.replace("reference", reference)) for column in columns]
        one = good[0]
        setting = f"{one['hardware']}, {one['threads']} thread(s), {one['precision']}, width {one['width']}"
        found.append(Section(rows, setting, "", columns, lines(columns, good)))
    if peers:
        precisions = " or ".join(sorted({peer["peer_precision"] for peer in peers}, reverse=True))
        title = f"Other implementations, in {precisions}, measured in turn"
        found.append(Section(peers, title, "", PEERS, lines(PEERS, peers)))
    if texts := notes(rows):
        found.append(Section(rows, "Notes", notes=list(map(Note, texts))))
    return found


def notes(rows: list[Row]) -> list[str]:
    """Rows that could not be measured and peers that are missing, a line each."""
    found = [f"{name(row)}: {row['status']}: {row['reason']}" for row in rows if row["status"] != "ok"]
    for row in rows:
        found += [f"{name(row)}: {peer}: {reason}" for peer, reason in row.get("peers_missing", {}).items()]
        if "peers" in row and not row["peers"] and not row["peers_missing"]:
            found.append(f"{row['architecture']}: no other implementation is known to bench in role {row['role']}")
    return list(dict.fromkeys(found))


def show(rows: list[Row], console: Console) -> None:
    """The tables and notes on a terminal."""
    for section in sections(rows):
        print_section(section, console)


def plot(rows: list[Row]) -> bytes | None:
    """Seconds of a training step per sequence against length, as a PNG; None of fewer than two lengths."""
    from harness.board import charts, export
    from harness.board.looks import Frame, looks

    chart = charts.lengths(rows, Frame(looks(row["architecture"] for row in rows), width=480, legend=True))
    return None if chart is None else export.png(chart)


def save(rows: list[Row], folder: Path) -> list[Path]:
    """Write bench.json, bench.md and, of several lengths, time.png; returns what was written."""
    written = [folder / "bench.json", folder / "bench.md"]
    write(written[0], to_json(rows))
    write(written[1], "\n\n".join(map(as_markdown, sections(rows))) + "\n")
    if (drawn := plot(rows)) is not None:
        written.append(folder / "time.png")
        write(written[-1], drawn)
    return written
