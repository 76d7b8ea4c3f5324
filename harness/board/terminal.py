"""A board on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.board.model import Board
from harness.board.sections import sections
from harness.board.tables import Column, Note, Section


def render(board: Board, console: Console | None = None) -> None:
    """Print the board; narrow terminals get fewer columns."""
    console = console or Console()
    console.print(Text(board.suite, style="bold"), Text(board.about))
    for note in board.notes:
        console.print(_item(Note(note)))
    for section in sections(board):
        console.print()
        console.print(_fitting(section, console) if section.columns else Text(section.title, style="bold"))
        for each in section.notes:
            console.print(_item(each))


def _item(note: Note) -> Padding:
    """A note, hanging from its dot."""
    table = Table.grid(padding=(0, 1))
    table.add_row("·", Text.assemble((note.name, "bold"), " " * bool(note.name), note.text))
    return Padding(table, (0, 2), style="dim")


def _fitting(section: Section, console: Console) -> Table:
    """The table with as many of its columns as fit the terminal."""
    shown, free = list(section.columns), console.options.update(width=10_000)
    while True:
        table = _table(section, shown)
        droppable = [column for column in shown if column.optional]
        if not droppable or Measurement.get(console, free, table).maximum <= console.width:
            return table
        shown.remove(droppable[-1])


def _table(section: Section, shown: list[Column]) -> Table:
    title = Text.assemble((section.title, "bold"), f"  {section.about}")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", padding=(0, 1, 0, 0))
    for column in shown:
        table.add_column(
            Text(column.title),
            justify="left" if column.left else "right",
            no_wrap=not column.left,
            overflow="fold",
            min_width=10 if column.left else None,
        )
    kept = [i for i, column in enumerate(section.columns) if column in shown]
    for line in section.lines:
        table.add_row(*(Text(line.cells[i].text) for i in kept), style="" if line.kind == "ranked" else "dim")
    return table
