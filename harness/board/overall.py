"""What stands below the tables of single tasks: a task's tracks side by side, then everything over several tasks."""

from __future__ import annotations

from harness.board import tracks
from harness.board.across import show
from harness.board.grids import Grid
from harness.board.model import Board


def grids(board: Board) -> list[Grid]:
    """Every table, in order."""
    beside = [tracks.grid(contrast) for contrast in board.contrasts]
    return beside + [grid for across in board.across for grid in show.grids(across)]
