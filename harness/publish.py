"""Where the commands find boards, comparisons, status and verification; goes when they import them themselves."""

from harness.board import render as show
from harness.board.report import board, compare, show_comparison
from harness.execute.status import status
from harness.records.verify import verify

__all__ = ["board", "compare", "show", "show_comparison", "status", "verify"]
