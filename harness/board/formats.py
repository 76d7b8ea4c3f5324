"""A board on a terminal, and as LaTeX, Markdown, CSV, JSON and Parquet. In each, names and notes are text."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console

from harness.board.latex import latex
from harness.board.model import Board
from harness.board.sections import sections
from harness.board.tables import Note, as_markdown, bullets, escape, paragraph, print_note, print_section, text
from harness.errors import printable
from harness.records.files import to_json

Flat = list[dict[str, Any]]


def render(board: Board, console: Console | None = None) -> None:
    """Print the board."""
    console = console or Console()
    console.print(text(board.suite, "bold"), text(board.about))
    for note in board.notes:
        print_note(Note(note), console)
    for section in sections(board):
        console.print()
        print_section(section, console)


def markdown(board: Board) -> str:
    """The board for a README."""
    parts = [f"# {escape(board.suite)}", paragraph(board.about), bullets(map(Note, board.notes))]
    parts += map(as_markdown, sections(board))
    if board.defaults:
        listed = [
            f"- **{escape(name)}**: {escape('; '.join(own) or 'nothing')}" for name, own in board.defaults.items()
        ]
        parts += ["## Defaults of their own", "\n".join(listed)]
    return "\n\n".join(filter(None, parts)) + "\n"


def flat(boards: Iterable[Board]) -> Flat:
    """The rows of `Board.to_rows` without control characters."""
    return [_printable(row) for board in boards for row in board.to_rows()]


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    return [*map(_printable, value)] if isinstance(value, list) else value


def as_csv(boards: Iterable[Board]) -> str:
    """A row a line; lists are joined by spaces, other scores are `name=value`. No cell is a formula."""
    rows, stream = flat(boards), io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(dict.fromkeys(name for row in rows for name in row))
    for row in rows:
        row["also"] = [f"{name}={value}" for name, value in row["also"].items()]
        writer.writerow(map(csv_cell, row.values()))
    return stream.getvalue()


def csv_cell(value: Any) -> Any:
    """A value for a spreadsheet. Text that it would compute begins with an apostrophe; numbers stay as they are."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if not isinstance(value, str):
        return value
    shown = printable(value)
    formula = re.match(r"\s*[=+@＝＋－＠-]", shown) and not re.fullmatch(r"[-+.\de ]+", shown)
    return f"'{shown}" if formula else shown


def as_json(boards: Iterable[Board]) -> str:
    """A list of rows."""
    return to_json(flat(boards))


def as_parquet(boards: Iterable[Board]) -> bytes:
    """A row each, with the types of its values; other scores are a map."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = json.loads(as_json(boards))  # without NaN
    also = pa.array([[*row.pop("also").items()] for row in rows], pa.map_(pa.string(), pa.float64()))
    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows).append_column("also", also), stream)
    return stream.getvalue()


FORMATS: dict[str, Callable[[Sequence[Board]], str | bytes]] = {
    "latex": lambda boards: "\n".join(map(latex, boards)),
    "markdown": lambda boards: "\n".join(map(markdown, boards)),
    "csv": as_csv,
    "json": as_json,
    "parquet": as_parquet,
}
SUFFIXES = {".tex": "latex", ".md": "markdown", ".csv": "csv", ".json": "json", ".parquet": "parquet"}
