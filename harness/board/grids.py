"""A table of any kind beside those of single tasks: on a terminal, in Markdown, and (by its template) on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.board.tables import item, md

Cell: TypeAlias = "tuple[str, float | str | None]"
"""Text, and what the page sorts by."""


@dataclass(frozen=True, slots=True)
class Head:
    """A column's title and what it means."""

    title: str
    about: str = ""
    left: bool = False
    optional: bool = False
    """Left out where space is short, the last of them first."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of any kind."""

    title: str
    about: str
    heads: list[Head]
    rows: list[list[Cell]]
    notes: list[str]


def render(grids: Iterable[Grid], console: Console) -> None:
    """Print every table; narrow terminals get fewer columns."""
    for grid in grids:
        console.print()
        console.print(_fitting(grid, console) if grid.heads else Text(grid.title, style="bold"))
        for note in grid.notes:
            console.print(item(escape(note)))


def _fitting(grid: Grid, console: Console) -> Table:
    shown, free = list(range(len(grid.heads))), console.options.update(width=10_000)
    for drop in (*(i for i in reversed(shown) if grid.heads[i].optional), math.inf):
        table = _table(grid, shown)
        if Measurement.get(console, free, table).maximum <= console.width:
            break
        shown = [i for i in shown if i != drop]
    return table


def _table(grid: Grid, shown: Sequence[int]) -> Table:
    title = Text.assemble((grid.title, "bold"), f"  {grid.about}")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", padding=(0, 1, 0, 0))
    for head in (grid.heads[i] for i in shown):
        name = head.left
        table.add_column(
            Text(head.title),
            justify="left" if name else "right",
            no_wrap=not name,
            overflow="fold",
            min_width=10 if name else None,
        )
    for row in grid.rows:
        table.add_row(*(Text(row[i][0]) for i in shown))
    return table


def markdown(grids: Iterable[Grid]) -> str:
    """Every table, to stand below those of the tasks."""
    return "".join("\n" + _markdown(grid) + "\n" for grid in grids)


def _markdown(grid: Grid) -> str:
    lines = [f"| {' | '.join(md(cell) for cell, _ in row)} |" for row in grid.rows]
    if grid.heads:
        titles = f"| {' | '.join(md(head.title) for head in grid.heads)} |"
        lines = [titles, f"|{'|'.join(':--' if head.left else '--:' for head in grid.heads)}|", *lines]
    notes = "\n".join(f"- {md(note)}" for note in grid.notes)
    return "\n\n".join(part for part in (f"## {md(grid.title)}", md(grid.about), "\n".join(lines), notes) if part)
