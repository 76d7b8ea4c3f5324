"""The boards of suites' records: made, published, and two rows compared."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from harness import board as boards
from harness.board import comparison
from harness.board.comparison import Comparison
from harness.board.formats import markdown
from harness.board.model import Board
from harness.errors import UserError
from harness.execute.runner import baselines, current
from harness.processes import no_collection
from harness.records.checks import older, problems
from harness.records.files import write_atomic
from harness.records.record import Error, Record
from harness.records.seeds import SeedRule
from harness.records.signature import SIGNATURE, signer
from harness.records.store import Store, baseline_key, default_root, named_by, stores
from harness.suite.load import find_suite, load_without_code
from harness.suite.loaded import LoadedSuite
from zoo.registry import nearest

MOST_CHECKED = 5_000
"""Records that a board checks by themselves, about half a millisecond each; `zoobench verify` checks any number."""


def board(suite: str, overrides: tuple[str, ...] = (), root: Path | None = None) -> Board:
    """The board of a suite's records.

    Raises:
        UserError: there are no records yet.
    """
    return of_suite(suite, overrides, root)[0]


def of_suite(suite: str, overrides: tuple[str, ...] = (), root: Path | None = None) -> tuple[Board, list[Record]]:
    """The board of a suite's records, and these; of results alone where there is no suite of this name or path.

    Raises:
        UserError: there are no records yet.
    """
    try:
        found, loaded = load_without_code(suite, overrides)
    except UserError:
        stores = [Store(folder.name, folder.parent) for folder in ((root or default_root()) / suite, Path(suite))]
        if overrides or _is_suite(suite) or not (store := next((store for store in stores if store.exists()), None)):
            raise
        return of_store(store)
    return with_records(loaded, suite, root) if loaded else of_store(Store(found.suite, root))


def _is_suite(suite: str) -> bool:
    try:
        return bool(find_suite(suite))
    except UserError:
        return False


@no_collection()
def with_records(loaded: LoadedSuite, suite: str, root: Path | None = None) -> tuple[Board, list[Record]]:
    """The board of a loaded suite, which the user calls `suite`, and the records it is made of.

    Raises:
        UserError: there are no records yet.
    """
    store = Store(loaded.name, root)
    records, lost = _records(loaded, store, suite), list[str]()
    lines = _unless_damaged(lambda: baselines(loaded, store), list[dict[str, Any]](), lost)
    return _signed(_noting(rank(loaded.described(()), records, lines), lost), store), records


@no_collection()
def of_store(store: Store) -> tuple[Board, list[Record]]:
    """The board of what lies in a suite's folder, and its records; no suite file is opened and no plug-in imported.

    Raises:
        UserError: it has no finished runs, or what was published cannot be read.
    """
    return _of_records(store, *store.readable())


T = TypeVar("T")


def _unless_damaged(read: Callable[[], T], otherwise: T, lost: list[str]) -> T:
    """What a file holds, or what a board does without it; then it notes so in `lost`."""
    try:
        return read()
    except UserError as error:
        lost.append(str(error))
        return otherwise


def _noting(board: Board, lost: list[str]) -> Board:
    """The board with a note for each file that could not be read."""
    return replace(board, notes=[*(f"left out: {problem}" for problem in lost), *board.notes])


def _of_records(store: Store, found: list[Record], lost: list[str]) -> tuple[Board, list[Record]]:
    described = _unless_damaged(store.described, dict[str, Any](), lost)
    records = _with_finals(named_by(described, found), UserError(lost[0]) if lost else _no_runs(store, store.suite))
    lines = _unless_damaged(lambda: _lines(store, records), list[dict[str, Any]](), lost)
    return _signed(_noting(rank({"suite": store.suite, **described}, records, lines), lost), store), records


def _signed(board: Board, store: Store) -> Board:
    """The board with a note about who signed the published records, if anybody did."""
    if not (store.folder / SIGNATURE).is_file():
        return board
    try:
        store.published.check()
        note = f"the published records are signed by {signer(store.folder)}"
    except UserError as error:
        note = f"the published records: {error.message}"
    return replace(board, notes=[*board.notes, note])


def _with_finals(records: list[Record], otherwise: UserError) -> list[Record]:
    """The records, if a final run is among them; else the error is raised."""
    if not any(record.spec.kind == "final" for record in records):
        raise otherwise
    return records


def _lines(store: Store, records: list[Record]) -> list[dict[str, Any]]:
    """The stored baselines of these records' tasks."""
    known = store.read_baselines()
    keys = {baseline_key(r.spec.task_label, r.data.fingerprint, r.spec.evaluate.test) for r in records}
    return [row for key in sorted(keys & known.keys()) for row in known[key]]


def publish(suite: str, overrides: tuple[str, ...] = (), root: Path | None = None) -> tuple[int, Path]:
    """Write a suite's records as published ones, with the board in Markdown; returns how many, and the folder.

    Raises:
        UserError: there are no records yet, or one is damaged.
    """
    store, described, records = current_records(suite, overrides, root)
    return len(records), publish_records(store, described, records)


def current_records(
    suite: str, overrides: tuple[str, ...] = (), root: Path | None = None
) -> tuple[Store, dict[str, Any], list[Record]]:
    """Where a suite's records lie, what it is, and those of it as it now stands; no plug-in is imported.

    A suite with plug-ins is what it was when it last ran.

    Raises:
        UserError: there are no records yet.
    """
    found, loaded = load_without_code(suite, overrides)
    store = Store(found.suite, root)
    if loaded is None:
        described = store.described()
        return store, described, _with_finals(named_by(described, store.records()), _no_runs(store, store.suite))
    return store, loaded.described(()), _records(loaded, store, suite)


def publish_records(
    store: Store,
    described: Mapping[str, Any],
    records: list[Record],
    contributions: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """Write these records as the published ones of a suite, and their board; returns the folder.

    `contributions` are listed in published.json after those that stand there.
    """
    for record in records:
        if record.status == "damaged" and record.error:
            raise UserError(f"{record.error.message}; remove it, and run {store.suite} to make it again")
    described = {**described, "runs": sorted(record.run_id for record in records)}
    made = rank(described, records, _lines(store, records))
    contributed = [*store.published.index.get("contributions", []), *contributions]
    store.publish(records, described, **({"contributions": contributed} if contributed else {}))
    write_atomic(store.folder / "board.md", markdown(made))
    return store.folder


def _records(loaded: LoadedSuite, store: Store, suite: str) -> list[Record]:
    return _with_finals(current(loaded, store), _no_runs(store, suite))


def _no_runs(store: Store, suite: str) -> UserError:
    return UserError(f"no finished runs yet; start them with: zoobench run {suite}", file=store.folder)


def rank(suite: Mapping[str, Any], records: Iterable[Record], baselines: Iterable[Mapping[str, Any]]) -> Board:
    """Rank records as their suite, described by `LoadedSuite.described`, says; by name where it is unknown.

    A record that cannot be as it says is shown as a run that failed, with the reason. Those without a digest and
    very many are not looked at; a note says so, but of what was published before there were digests.
    """
    known = [*records]
    order = [(task, track) for task, track in suite.get("order", ())]
    rules = {name: suite[name] for name in ("about", "reference", "targets", "only") if name in suite}
    rules |= {"seeds": SeedRule(**suite["seeds"])} if "seeds" in suite else {}
    many = len(known) > MOST_CHECKED
    believed = known if many else map(_believed, known)
    made = boards.make(suite.get("suite", ""), believed, baselines, order=order, **rules)
    if unchecked := len(known) if many else sum(not (record.digest or older(record)) for record in known):
        why = "too many for a board" if many else "as they have no digest"
        note = f"{unchecked:,} of {len(known):,} records stand as they are, unchecked, {why}; see zoobench verify"
        return replace(made, notes=[*made.notes, note])
    return made


def _believed(record: Record) -> Record:
    """The record, without scores if it is unsound."""
    for what, why in problems(record) if record.digest else ():
        error, none = Error("Unsound", f"unsound record: {what}: {why}"), record.metrics.replace(valid={}, test={})
        return record.replace(status="failed", error=error, metrics=none, lm_eval=None)
    return record


def compare(
    first: str, second: str, suite: str | None = None, overrides: tuple[str, ...] = (), root: Path | None = None
) -> Comparison:
    """Two rows on every task of a suite; without one, of every suite with results that has both.

    Raises:
        UserError: no board has a row of one of these names, or none has both.
    """
    if suite:
        found = [board(suite, overrides, root)]
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
    """The board of each suite with results that has all these rows; and the names of all rows."""
    found, known = [], set()
    for store in stores(root):
        records, lost = store.readable()
        names = {record.spec.architecture_label for record in records if record.spec.kind == "final"}
        known |= names
        if wanted <= names:
            found.append(_of_records(store, records, lost)[0])
    return found, known
