"""A board as a terminal table, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.board.model import Board, Line, Row, TaskBoard
from harness.units import clock

NONE = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """How one quantity of a row is titled, written, and (for the page) sorted."""

    title: str
    about: str
    text: Callable[[Row], str]
    value: Callable[[Row], float | str | None]
    left: bool = False
    optional: bool = False
    """Left out where space is short, the last of them first."""


def human(number: float | None, unit: str = "", figures: int = 2) -> str:
    """Few figures and a decimal scale: 401234 → 401k, 2.4e12 FLOP → 2.4 TFLOP."""
    if number is None:
        return NONE
    scales = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
    scale, prefix = next((s for s in scales if abs(number) >= s[0] * 0.9995), scales[-1])
    size = number / scale
    text = f"{size:.0f}" if abs(size) >= 10 ** (figures - 1) else f"{size:.{figures}g}"
    return f"{text} {prefix}{unit}" if unit else f"{text}{prefix}"


def place(span: tuple[int, int] | None) -> str:
    """`1` or `2–4`."""
    if span is None:
        return NONE
    low, high = span
    return str(low) if low == high else f"{low}–{high}"


def rank(row: Row) -> str:
    return place(row.places)


def score(row: Row) -> str:
    """Mean ± half of the 95% interval."""
    if row.mean is None:
        return row.status
    if row.low is None or row.high is None:
        return f"{row.mean:.3f}" if row.ranked or row.status == "ok" else f"{row.mean:.3f} ({row.status})"
    return f"{row.mean:.3f} ± {(row.high - row.low) / 2:.3f}"


def speed(row: Row) -> str:
    return NONE if row.tokens_per_s is None else f"{human(row.tokens_per_s)} tok/s"


def mismatch(row: Row) -> str:
    return NONE if row.mismatch is None else f"{row.mismatch:+.1%}"


def time(row: Row) -> str:
    return NONE if row.seconds is None else clock(row.seconds)


def relative(row: Row) -> str:
    return NONE if row.relative_speed is None else f"{row.relative_speed:.2f}"


def columns(board: TaskBoard) -> list[Column]:
    """Columns of one task's table; speed is left out where it cannot be compared, tuning where there was none."""
    found = [
        Column("rank", "places it may hold", rank, lambda r: r.rank_low),
        Column("architecture", "", lambda r: r.architecture, lambda r: r.architecture, left=True),
        Column(board.metric or "score", "mean ± half of the 95% interval", score, lambda r: r.mean),
        *(_other(name) for name in dict.fromkeys(name for row in board.rows for name in row.also)),
        Column(
            "group",
            "same letter: not separated",
            lambda r: r.letters or NONE,
            lambda r: r.letters or None,
            optional=True,
        ),
        Column("seeds", "seeds with a score", lambda r: str(len(r.seeds)), lambda r: len(r.seeds)),
        Column("params", "without embeddings", lambda r: human(size(r), figures=3), size),
        Column("off", "from the size all are matched to", mismatch, lambda r: r.mismatch, optional=True),
        Column("compute", "to train one seed", lambda r: human(r.flops, "FLOP"), lambda r: r.flops),
        Column("tokens", "to train one seed", lambda r: human(r.tokens), lambda r: r.tokens, optional=True),
        Column("time", "to train one seed", time, lambda r: r.seconds, optional=True),
        Column(
            "tuning",
            "of all its trials",
            lambda r: human(r.tuning_flops, "FLOP"),
            lambda r: r.tuning_flops,
            optional=True,
        ),
        Column("speed", "training", speed, lambda r: r.tokens_per_s),
        Column(
            "× ref", "speed over that of a reference timed in turn", relative, lambda r: r.relative_speed, optional=True
        ),
        Column("memory", "peak", lambda r: human(r.peak_memory, "B"), lambda r: r.peak_memory, optional=True),
        Column("state", "recurrent", lambda r: human(r.state_bytes, "B"), lambda r: r.state_bytes, optional=True),
    ]
    empty = {c.title for c in found if all(c.value(row) is None for row in board.rows)}
    return [c for c in found if c.title not in ("speed", "× ref", "time", "off", "tuning") or c.title not in empty]


def _other(name: str) -> Column:
    """Another score of the task, which ranks nothing."""

    def text(row: Row) -> str:
        return f"{row.also[name]:.3f}" if name in row.also else NONE

    return Column(name, "mean over the seeds; not ranked by", text, lambda r: r.also.get(name), optional=True)


def size(row: Row) -> int | None:
    return row.params if row.params_non_embedding is None else row.params_non_embedding


def reasons(board: TaskBoard) -> list[tuple[str, str]]:
    """Why rows are not ranked, in the order of the table."""
    return [(row.architecture, row.reason) for row in board.rows if row.reason]


def direction(board: TaskBoard) -> str:
    better = "higher" if board.higher_is_better else "lower"
    unit = f", {board.unit}" if board.unit else ""
    return f"{board.metric}{unit}, {better} is better" if board.metric else "no scores"


def render(board: Board, console: Console | None = None) -> None:
    """Print the board; narrow terminals get fewer columns."""
    console = console or Console()
    console.print(Text(board.suite, style="bold"), Text(board.about))
    for task in board.tasks:
        console.print()
        console.print(_fitting(task, console))
        if task.equal:
            console.print(item(f"held equal: {escape(task.equal)}"))
        for name, reason in reasons(task):
            console.print(item(f"[bold]{escape(name)}[/] not ranked: {escape(reason)}"))
        for note in task.notes:
            console.print(item(escape(note)))
    if board.notes:
        console.print()
    for note in board.notes:
        console.print(item(escape(note)))


def item(markup: str) -> Padding:
    """A line of notes, hanging from its dot."""
    table = Table.grid(padding=(0, 1))
    table.add_row("·", Text.from_markup(markup))
    return Padding(table, (0, 2), style="dim")


def _fitting(board: TaskBoard, console: Console) -> Table:
    """The table with as many of its columns as the terminal has room for."""
    shown, free = columns(board), console.options.update(width=10_000)
    for title in (*(c.title for c in reversed(shown) if c.optional), None):
        table = _grid(board, shown)
        if Measurement.get(console, free, table).maximum <= console.width:
            break
        shown = [c for c in shown if c.title != title]
    return table


def _grid(board: TaskBoard, shown: list[Column]) -> Table:
    title = Text.assemble((board.title, "bold"), f"  {direction(board)}")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", padding=(0, 1, 0, 0))
    for column in shown:
        name = column.title == "architecture"
        table.add_column(
            Text(column.title),
            justify="left" if column.left else "right",
            no_wrap=not name,
            overflow="fold",
            min_width=10 if name else None,
        )
    for entry in board.entries():
        if isinstance(entry, Line):
            cells = {"architecture": entry.name, board.metric or "score": f"{entry.value:.3f}"}
            table.add_row(*(Text(cells.get(c.title, "")) for c in shown), style="dim")
        else:
            table.add_row(*(Text(c.text(entry)) for c in shown), style="" if entry.ranked else "dim")
    return table


def markdown(board: Board) -> str:
    """The board for a README."""
    parts = [f"# {md(board.suite)}", md(board.about)]
    for task in board.tasks:
        shown = columns(task)
        lines = [
            f"| {' | '.join(md(c.title) for c in shown)} |",
            f"|{'|'.join(':--' if c.left else '--:' for c in shown)}|",
        ]
        for entry in task.entries():
            if isinstance(entry, Line):
                cells = {"architecture": f"*{md(entry.name)}*", task.metric or "score": f"{entry.value:.3f}"}
                lines.append(f"| {' | '.join(cells.get(c.title, '') for c in shown)} |")
            else:
                lines.append(f"| {' | '.join(md(c.text(entry)) for c in shown)} |")
        equal = f"Held equal: {md(task.equal)}." if task.equal else ""
        parts += [f"## {md(task.title)}", md(direction(task)), equal, "\n".join(lines)]
        unranked = [f"- **{md(name)}** not ranked: {md(reason)}" for name, reason in reasons(task)]
        parts.append("\n".join([*unranked, *(f"- {md(note)}" for note in task.notes)]))
    parts.append("\n".join(f"- {md(note)}" for note in board.notes))
    if board.defaults:
        listed = [f"- **{md(name)}**: {md('; '.join(own) or 'nothing')}" for name, own in board.defaults.items()]
        parts += ["## Defaults of their own", "\n".join(listed)]
    return "\n\n".join(part for part in parts if part) + "\n"


def md(text: str) -> str:
    """Escaped, on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for mark in "|*`[]":
        text = text.replace(mark, f"\\{mark}")
    return text


def as_csv(board: Board) -> str:
    """`Board.to_rows`; lists are joined by spaces, other scores are `name=value`."""
    rows = board.to_rows()
    stream = io.StringIO()
    names = ["task", "track", "metric", *(field.name for field in dataclasses.fields(Row)), "ranked"]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        row["also"] = [f"{name}={value}" for name, value in row["also"].items()]
        writer.writerow({k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()})
    return stream.getvalue()


def as_json(board: Board) -> str:
    """The whole board, notes included."""
    return json.dumps(dataclasses.asdict(board), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
