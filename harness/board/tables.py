"""One description of a table for all formats: the terminal, Markdown and the page write the same sections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.errors import printable
from harness.units import NONE


class Cell(NamedTuple):
    """The text of a cell, and the value that the page sorts by."""

    text: str
    value: float | str | None = None


def cell(value: Any, text: Callable[[Any], str] = "{:.3f}".format) -> Cell:
    """A value as `text` writes it, or a dash."""
    return Cell(NONE if value is None else text(value), value)


def ranks(span: tuple[int, int] | None) -> str:
    """`1` or `2–4`."""
    return NONE if span is None else "–".join(map(str, sorted({*span})))


@dataclass(frozen=True, slots=True)
class Column:
    """How one property of the rows is titled, written and sorted."""

    title: str
    cell: Callable[[Any], Cell]
    about: str = ""
    left: bool = False
    """Aligned left, as names are."""
    optional: bool = False
    """Left out where space is short, the last of them first."""


def name_column(read: Callable[[Any], str], title: str = "architecture") -> Column:
    """A column of names."""
    return Column(title, lambda item: cell(read(item), str), left=True)


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table."""

    cells: list[Cell]
    kind: str = "ranked"
    """`ranked`, `unranked` or `baseline`: how it looks."""
    about: str = ""


class Note(NamedTuple):
    """A sentence beside a table; with a name in bold before it where it is about one architecture."""

    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its title and notes."""

    subject: Any
    """The part of the board it shows."""
    title: str
    about: str = ""
    columns: Sequence[Column] = ()
    lines: list[Line] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    folded: Section | None = None
    """A table that stands on the page only, folded."""


def lines(columns: Sequence[Column], items: Iterable[Any]) -> list[Line]:
    """One line for each item."""
    return [Line([column.cell(item) for column in columns]) for item in items]


LONG, SHOWN = 100, 40
"""Tables of more lines than LONG are cut after SHOWN on a terminal, which takes 1 ms a line."""


def print_section(section: Section, console: Console) -> None:
    """A section on a terminal; narrow ones get fewer columns, and long tables end early."""
    count = len(section.lines)
    if count > LONG:
        section = replace(section, lines=section.lines[:SHOWN])
    console.print(_fitting(section, console) if section.columns else text(section.title, "bold"))
    if count > LONG:
        print_note(Note(f"{count - SHOWN} more lines, left out here: --format has all"), console)
    for note in section.notes:
        print_note(note, console)


def text(words: str, style: str = "") -> Text:
    """Words for a terminal, which nothing in them can command."""
    return Text(printable(words), style)


def print_note(note: Note, console: Console) -> None:
    """A note, hanging from its dot."""
    table = Table.grid(padding=(0, 1))
    table.add_row("·", Text.assemble(text(note.name, "bold"), " " * bool(note.name), text(note.text)))
    console.print(Padding(table, (0, 2), style="dim"))


def _fitting(section: Section, console: Console) -> Table:
    """The table with as many of its columns as fit the terminal."""
    shown, free = list(section.columns), console.options.update(width=10_000)
    widest = [
        max(cells, key=lambda cell: cell_len(cell.text))
        for cells in zip(*(line.cells for line in section.lines), strict=True)
    ]
    sample = replace(section, lines=[Line(widest)] if widest else [])  # as wide, and measured in no time
    while True:
        droppable = [column for column in shown if column.optional]
        if not droppable or Measurement.get(console, free, _table(sample, shown)).maximum <= console.width:
            return _table(section, shown)
        shown.remove(droppable[-1])


def _table(section: Section, shown: list[Column]) -> Table:
    title = Text.assemble(text(section.title, "bold"), "  ", text(section.about))
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", padding=(0, 1, 0, 0))
    for column in shown:
        style: dict[str, Any] = {"min_width": 10} if column.left else {"justify": "right", "no_wrap": True}
        table.add_column(text(column.title), overflow="fold", **style)
    kept = [column in shown for column in section.columns]
    for line in section.lines:
        cells = [text(cell.text) for cell in compress(line.cells, kept)]
        table.add_row(*cells, style="" if line.kind == "ranked" else "dim")
    return table


def as_markdown(section: Section) -> str:
    """A section in Markdown; the names of baselines stand in italics."""
    columns, table = section.columns, []
    if columns:
        table = [f"| {' | '.join(escape(column.title) for column in columns)} |"]
        table += [f"|{'|'.join(':--' if column.left else '--:' for column in columns)}|"]
    for line in section.lines:
        marks = ["*" if line.kind == "baseline" and column.left else "" for column in columns]
        texts = [f"{mark}{escape(cell.text)}{mark}" for mark, cell in zip(marks, line.cells, strict=True)]
        table.append(f"| {' | '.join(texts)} |")
    parts = [f"## {escape(section.title)}", paragraph(section.about), "\n".join(table), bullets(section.notes)]
    return "\n\n".join(filter(None, parts))


def bullets(notes: Iterable[Note]) -> str:
    """Notes as a list in Markdown."""
    return "\n".join(f"- **{escape(name)}** {escape(text)}" if name else f"- {paragraph(text)}" for text, name in notes)


def escape(text: str) -> str:
    """Plain text for Markdown, on one line."""
    text = " ".join(printable(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"[\\|*`[\]$~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def paragraph(text: str) -> str:
    """Plain text that begins a line of Markdown: nothing in it makes a heading, a list or a quotation."""
    return re.sub(
        r"^([#>+=-]|\d+(?=[.)]))", lambda mark: mark[0] + "\\" if mark[0].isdigit() else "\\" + mark[0], escape(text)
    )
