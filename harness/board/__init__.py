"""Boards: rankings made from records of runs, with their uncertainty."""

from collections.abc import Iterable
from pathlib import Path

from harness.board.formats import as_csv, as_json, markdown, render
from harness.board.model import Baseline, Board, TaskBoard
from harness.board.ranking import make
from harness.board.rows import Row
from harness.records.record import Record
from harness.records.store import write_atomic

__all__ = ["Baseline", "Board", "Row", "TaskBoard", "make", "render", "write"]


def write(board: Board, records: Iterable[Record], folder: Path) -> None:
    """Write board.md, board.csv, board.json and index.html into `folder`, each atomically."""
    from harness.board import page  # it brings matplotlib

    write_atomic(folder / "board.md", markdown(board))
    write_atomic(folder / "board.csv", as_csv(board))
    write_atomic(folder / "board.json", as_json(board))
    write_atomic(folder / "index.html", page.page(board, records))
