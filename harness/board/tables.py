"""One description of a table for all formats: the terminal, Markdown and the page write the same sections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.board.text import NONE, decimal


class Cell(NamedTuple):
    """What a cell says, and the value that the page sorts by."""

    text: str
    value: float | str | None = None


def cell(value: Any, text: Callable[[Any], str] = decimal) -> Cell:
    """A value as `text` writes it, or a dash."""
    return Cell(NONE if value is None else text(value), value)


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


def name_column(read: Callable[[Any], str]) -> Column:
    """The column of the architecture's name."""
    return Column("architecture", lambda item: cell(read(item), str), left=True)


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
    """A table and what stands around it."""

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
