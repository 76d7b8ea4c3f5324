"""What `bench` found, for people: a table, and time against length as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.board.drawing import styles
from harness.records.store import to_json

Row = dict[str, Any]
COLUMNS = {
    "train tok/s": lambda r: _count(r["train_tokens_per_s"]),
    "±": lambda r: _number(r["train_spread"], 100, 0, "%"),
    "× reference": lambda r: _number(r["relative_speed"], 1, 2),
    "of peak": lambda r: _number(r["fraction_of_peak"], 100, 0, "%"),
    "prefill": lambda r: _count(r["prefill_tokens_per_s"]),
    "ms/token": lambda r: _number(r["decode_ms_per_token"], 1, 2),
    "state kB": lambda r: _number(r["state_bytes"], 1e-3, 1),
    "peak MB": lambda r: _number(r["peak_memory_bytes"], 1e-6, 0),
    "t ~ Tᵃ": lambda r: _number(r["time_slope"], 1, 2),
    "mem": lambda r: _number(r["memory_slope"], 1, 2),
}
PEERS = {
    "peer": lambda p: f"{p['peer']} {p['version']}",
    "params": lambda p: _number(p["params_mismatch"], 100, 1, "%", sign=True),
    "tok/s": lambda p: _count(p["peer_train_tokens_per_s"]),
    "peak MB": lambda p: _number(p["peer_peak_memory_bytes"], 1e-6, 0),
    "× as fast": lambda p: _number(p["ratio"], 1, 2) if p["comparable"] else "not the same size",
    "× memory": lambda p: _number(p["memory_ratio"], 1, 2),
}


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _number(value: float | None, scale: float, digits: int, unit: str = "", sign: bool = False) -> str:
    return "–" if value is None else f"{value * scale:{'+' if sign else ''},.{digits}f}{unit}"


def name(row: Row) -> str:
    """`mamba 256×8`, with the role where it is not language modelling."""
    role = "" if row["role"] == "lm" else f" {row['role']}"
    return f"{row['architecture']} {row['length']}×{row['batch']}{role}"


def setting(rows: list[Row]) -> str:
    """What all rows were measured with: machine, threads, precision, width."""
    row = rows[0]
    return f"{row['hardware']}, {row['threads']} thread(s), {row['precision']}, width {row['width']}"


def line(row: Row) -> str:
    """A row in a few words, for whoever waits."""
    if row["status"] != "ok":
        return f"{name(row)}: {row['status']}: {row['reason']}"
    peers = "".join(f", {p['ratio']:.2f} × {p['peer']}" for p in row.get("peers", []))
    return f"{name(row)} {row['precision']}: {_count(row['train_tokens_per_s'])} tokens/s in training{peers}"


def tables(rows: list[Row]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, head and cells: of all rows, and of their peers if any were measured."""
    good = [row for row in rows if row["status"] == "ok"]
    columns = {head: [make(row) for row in good] for head, make in COLUMNS.items()}
    columns = {head: cells for head, cells in columns.items() if set(cells) != {"–"}}
    reference = next((row["reference"] for row in good if row["reference"]), "reference")
    head = ["architecture", *(column.replace("reference", reference) for column in columns)]
    lines = [list(cells) for cells in zip(map(name, good), *columns.values(), strict=True)]
    found = [(setting(good), head, lines)] if good else []
    against = [[name(row), *(make(peer) for make in PEERS.values())] for row in good for peer in row.get("peers", [])]
    if against:
        found.append(("Other implementations, in fp32, measured in turn", ["ours", *PEERS], against))
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
    for title, head, cells in tables(rows):
        table = Table(
            title=Text(title) if title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for number, column in enumerate(head):
            table.add_column(column, justify="left" if number == 0 or column == "peer" else "right", no_wrap=True)
        for line in cells:
            table.add_row(*line)
        console.print(table)
    for note in notes(rows):
        console.print(note, style="yellow", highlight=False, markup=False)


def markdown(rows: list[Row]) -> str:
    """The tables and notes as Markdown."""
    parts = []
    for title, head, cells in tables(rows):
        lines = [f"### {title}", ""] if title else []
        lines += ["| " + " | ".join(head) + " |", "|---" * 1 + "|---:" * (len(head) - 1) + "|"]
        parts.append("\n".join(lines + ["| " + " | ".join(line) + " |" for line in cells]))
    parts += ["\n".join(f"- {note}" for note in notes(rows))] if notes(rows) else []
    return "\n\n".join(parts) + "\n"


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
    written[1].write_text(markdown(rows), encoding="utf-8")
    figure = plot(rows)
    if figure is not None:
        written.append(folder / "time.png")
        figure.savefig(written[-1], dpi=150)
    return written
