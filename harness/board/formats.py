"""A board on a terminal, and as Markdown, CSV and JSON; `page` makes it a web page."""

import csv
import dataclasses
import io

from rich.console import Console
from rich.text import Text

from harness.board.model import Board
from harness.board.rows import Row
from harness.board.sections import sections
from harness.board.tables import Note, as_markdown, bullets, escape, print_note, print_section
from harness.records.files import to_json


def render(board: Board, console: Console | None = None) -> None:
    """Print the board."""
    console = console or Console()
    console.print(Text(board.suite, style="bold"), Text(board.about))
    for note in board.notes:
        print_note(Note(note), console)
    for section in sections(board):
        console.print()
        print_section(section, console)


def markdown(board: Board) -> str:
    """The board for a README."""
    parts = [f"# {escape(board.suite)}", escape(board.about), bullets(map(Note, board.notes))]
    parts += map(as_markdown, sections(board))
    if board.defaults:
        listed = [
            f"- **{escape(name)}**: {escape('; '.join(own) or 'nothing')}" for name, own in board.defaults.items()
        ]
        parts += ["## Defaults of their own", "\n".join(listed)]
    return "\n\n".join(filter(None, parts)) + "\n"


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
