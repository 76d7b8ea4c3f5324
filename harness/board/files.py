"""A board as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable

from harness.board.model import Board
from harness.board.rows import Row
from harness.board.sections import sections
from harness.board.tables import Line, Note, Section
from harness.records.store import to_json


def markdown(board: Board) -> str:
    """The board for a README."""
    parts = [f"# {_md(board.suite)}", _md(board.about), _items(Note(text) for text in board.notes)]
    for section in sections(board):
        parts += [f"## {_md(section.title)}", _md(section.about), _table(section), _items(section.notes)]
    if board.defaults:
        listed = [f"- **{_md(name)}**: {_md('; '.join(own) or 'nothing')}" for name, own in board.defaults.items()]
        parts += ["## Defaults of their own", "\n".join(listed)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(section: Section) -> str:
    if not section.columns:
        return ""
    titles = _row([_md(column.title) for column in section.columns])
    rule = f"|{'|'.join(':--' if column.left else '--:' for column in section.columns)}|"
    return "\n".join([titles, rule, *(_row(_cells(section, line)) for line in section.lines)])


def _cells(section: Section, line: Line) -> list[str]:
    """The names of baselines stand in italics."""
    texts = [_md(cell.text) for cell in line.cells]
    if line.kind == "baseline":
        return [f"*{text}*" if column.left else text for column, text in zip(section.columns, texts, strict=True)]
    return texts


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _items(notes: Iterable[Note]) -> str:
    return "\n".join(f"- **{_md(name)}** {_md(text)}" if name else f"- {_md(text)}" for text, name in notes)


def _md(text: str) -> str:
    """Escaped, on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for mark in "|*`[]":
        text = text.replace(mark, f"\\{mark}")
    return text


def as_csv(board: Board) -> str:
    """`Board.to_rows`; lists are joined by spaces, other scores are `name=value`."""
    stream = io.StringIO()
    names = ["task", "track", "metric", *(f.name for f in dataclasses.fields(Row)), "ranked"]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row in board.to_rows():
        row["also"] = [f"{name}={value}" for name, value in row["also"].items()]
        writer.writerow({k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()})
    return stream.getvalue()


def as_json(board: Board) -> str:
    """The whole board, notes included."""
    return to_json(dataclasses.asdict(board))
