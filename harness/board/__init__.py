"""Boards: rankings made from records of runs, with their uncertainty."""

from harness.board.formats import render
from harness.board.model import Baseline, Board, TaskBoard
from harness.board.ranking import make
from harness.table.rows import Row

__all__ = ["Baseline", "Board", "Row", "TaskBoard", "make", "render"]
