"""The boards of suites' records: written beside them, and two rows compared."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness import board as boards
from harness.board import comparison
from harness.board.comparison import Comparison
from harness.board.model import Board
from harness.errors import UserError
from harness.execute.runner import baselines, current
from harness.records.record import Record
from harness.records.store import Store, default_root
from harness.suite.load import load
from harness.suite.loaded import LoadedSuite
from zoo.registry import nearest


def board(
    suite: str, overrides: tuple[str, ...] = (), root: Path | None = None, *, save: bool = True
) -> tuple[Board, Path]:
    """The board of a suite's records, written beside them unless `save` is false; and its folder.

    Raises:
        UserError: there are no records yet.
    """
    return board_of(load(suite, overrides), suite, root, save=save)


def board_of(loaded: LoadedSuite, suite: str, root: Path | None = None, *, save: bool = True) -> tuple[Board, Path]:
    """The same for a suite that is loaded already; `suite` is what the user calls it."""
    made, _ = with_records(loaded, suite, root)
    folder = Store(loaded.name, root).folder / "board"
    if save:
        boards.write(made, folder)
    return made, folder


def with_records(loaded: LoadedSuite, suite: str, root: Path | None = None) -> tuple[Board, list[Record]]:
    """The board of a loaded suite, and the records it is made of.

    Raises:
        UserError: there are no records yet.
    """
    store = Store(loaded.name, root)
    records = current(loaded, store)
    if not any(record.spec.kind == "final" for record in records):
        raise UserError(f"no finished runs yet; start them with: zoobench run {suite}", file=store.folder)
    return rank(loaded, records, baselines(loaded, store)), records


def rank(loaded: LoadedSuite, records: Iterable[Record], baselines: Iterable[Mapping[str, Any]]) -> Board:
    """Rank records as their suite says."""
    suite = loaded.suite
    return boards.make(
        loaded.name,
        records,
        baselines,
        about=suite.about,
        order=[(task.label, track) for task in suite.tasks for track in loaded.tracks],
        reference=suite.reference or "",
        targets=suite.targets,
        only={task.label: task.only for task in suite.tasks if task.only},
    )


def compare(
    first: str, second: str, suite: str | None = None, overrides: tuple[str, ...] = (), root: Path | None = None
) -> Comparison:
    """Two rows on every task of a suite; without one, of every suite with results that has both.

    Raises:
        UserError: no board has a row of one of these names, or none has both.
    """
    if suite:
        found = [board(suite, overrides, root, save=False)[0]]
        names, where = {row.architecture for task in found[0].tasks for row in task.rows}, f"on the board of {suite}"
    else:
        found, names = _every_board({first, second}, root)
        where = f"in any suite under {root or default_root()}"
    for name in (first, second):
        if name not in names:
            raise UserError(f"no row {name!r} {where}{nearest(name, sorted(names))}")
    if not found:
        raise UserError(f"no suite under {root or default_root()} has rows of both {first} and {second}")
    return comparison.compare(found, first, second)


def _every_board(wanted: set[str], root: Path | None) -> tuple[list[Board], set[str]]:
    """A board, without baselines, for each suite with results that has all these rows; and the names of all rows."""
    found, known = [], set()
    for suite in sorted(path.name for path in (root or default_root()).glob("*") if path.is_dir()):
        records = Store(suite, root).records()
        names = {record.spec.architecture_label for record in records}
        known |= names
        if wanted <= names:
            found.append(boards.make(suite, records, []))
    return found, known
