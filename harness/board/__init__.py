"""Boards: rankings made from records of runs, with the doubt they deserve. Light to import: heavy parts load on use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.board.model import Board, Line, Row, TaskBoard

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Board", "Line", "Row", "TaskBoard", "make", "render", "write"]


def make(
    suite: str,
    records: Iterable[Mapping[str, Any]],
    baselines: Iterable[Mapping[str, Any]],
    about: str = "",
    order: Sequence[tuple[str, str]] = (),
    reference: str = "",
    targets: Mapping[str, float] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
) -> Board:
    """Rank the final runs among `records`; see `harness.board.ranking`. `only` says, by task, which rows play it."""
    from harness.board import ranking

    return ranking.make(suite, records, baselines, about, order, reference, targets, only)


def render(board: Board, console: Console | None = None) -> None:
    """Print a board to the terminal."""
    from rich.console import Console

    from harness.board import grids, overall, tables

    console = console or Console()
    tables.render(board, console)
    grids.render(overall.grids(board), console)


def write(board: Board, records: Iterable[Mapping[str, Any]], folder: str | Path) -> None:
    """Write board.md, board.csv, board.json and index.html into `folder`, each atomically."""
    from harness.board.page import write as write_all

    write_all(board, records, folder)
