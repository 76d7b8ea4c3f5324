"""Boards: rankings made from records of runs, with their uncertainty."""

from pathlib import Path

from harness.board.formats import markdown, render
from harness.board.model import Baseline, Board, TaskBoard
from harness.board.ranking import make
from harness.board.rows import Row
from harness.records.store import write_atomic

__all__ = ["Baseline", "Board", "Row", "TaskBoard", "make", "render", "write"]


def write(board: Board, folder: Path) -> None:
    """Write board.md into `folder`."""
    write_atomic(folder / "board.md", markdown(board))
