"""What `bench` found, for people: a table, and time against length as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from harness.board.drawing import styles
from harness.board.tables import Column, Note, Section, as_markdown, cell, lines, name_column, print_section
from harness.records.store import to_json

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
PEERS = (
    name_column(lambda peer: peer["ours"], "ours"),
    name_column(lambda peer: f"{peer['peer']} {peer['version']}", "peer"),
    _column("params", "params_mismatch", "{:+.1%}"),
    _column("tok/s", "peer_train_tokens_per_s", "{:,.0f}"),
    _column("peak MB", "peer_peak_memory_bytes", "{:,.0f}", 1e-6),
    Column("× as fast", lambda peer: cell(peer["ratio"] if peer["comparable"] else "not the same size", _ratio)),
    _column("× memory", "memory_ratio", "{:,.2f}"),
)


def _ratio(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.2f}"


def name(row: Row) -> str:
    """`mamba 256×8`, with the role where it is not language modelling."""
    role = "" if row["role"] == "lm" else f" {row['role']}"
    return f"{row['architecture']} {row['length']}×{row['batch']}{role}"


def line(row: Row) -> str:
    """A row in a few words, for whoever waits."""
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
        title = "Other implementations, in fp32, measured in turn"
        found.append(Section(peers, title, "", PEERS, lines(PEERS, peers)))
    if said := notes(rows):
        found.append(Section(rows, "Notes", notes=list(map(Note, said))))
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


def plot(rows: list[Row]) -> Figure | None:
    """Seconds of a training step per sequence against length, both logarithmic; None of fewer than two lengths."""
    lines = dict[str, list[Row]]()
    for row in rows:
        if row["status"] == "ok":
            lines.setdefault(row["architecture"], []).append(row)
    lines = {key: sorted(line, key=lambda r: r["length"]) for key, line in lines.items() if len(line) > 1}
    if not lines:
        return None
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(
        xscale="log", yscale="log", xlabel="length, tokens", ylabel="training, seconds a sequence"
    )
    for key, (colour, dashes, mark) in styles(list(lines)).items():
        x = [row["length"] for row in lines[key]]
        y = [row["length"] / row["train_tokens_per_s"] for row in lines[key]]
        label = f"{key} (slope {lines[key][0]['time_slope']:.2f})"
        axes.plot(x, y, color=colour, linestyle=dashes, marker=mark, markersize=4, label=label)
    axes.set_xticks(x, [str(length) for length in x])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def save(rows: list[Row], folder: Path) -> list[Path]:
    """Write bench.json, bench.md and, of several lengths, time.png; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "bench.json", folder / "bench.md"]
    written[0].write_text(to_json(rows), encoding="utf-8")
    written[1].write_text("\n\n".join(map(as_markdown, sections(rows))) + "\n", encoding="utf-8")
    figure = plot(rows)
    if figure is not None:
        written.append(folder / "time.png")
        figure.savefig(written[-1], dpi=150)
    return written
