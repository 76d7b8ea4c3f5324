"""Boards: rankings made from records of runs, with their uncertainty. Light to import: heavy parts load on use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.board.model import Baseline, Board, TaskBoard
from harness.board.rows import Row
from harness.records.record import Record

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Baseline", "Board", "Row", "TaskBoard", "make", "render", "write"]


def make(
    suite: str,
    records: Iterable[Record],
    baselines: Iterable[Mapping[str, Any]],
    about: str = "",
    order: Sequence[tuple[str, str]] = (),
    reference: str = "",
    targets: Mapping[str, float] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
) -> Board:
    """Rank the final runs among `records`; see `harness.board.ranking`."""
    from harness.board import ranking

    return ranking.make(suite, records, baselines, about, order, reference, targets, only)


def render(board: Board, console: Console | None = None) -> None:
    """Print a board to the terminal."""
    from rich.console import Console

    from harness.board import terminal

    terminal.render(board, console or Console())


def write(board: Board, records: Iterable[Record], folder: str | Path) -> None:
    """Write board.md, board.csv, board.json and index.html into `folder`, each atomically."""
    from harness.board import files, page
    from harness.records.store import write_atomic

    forms = {
        "board.md": files.markdown(board),
        "board.csv": files.as_csv(board),
        "board.json": files.as_json(board),
        "index.html": page.page(board, records),
    }
    for name, text in forms.items():
        write_atomic(Path(folder) / name, text)
