"""The board of a suite's records: made, published, and two of its rows compared."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import board as boards
from harness.board.formats import markdown
from harness.board.model import Board, TaskBoard
from harness.board.rows import Row
from harness.board.tables import Column, Section, cell, lines, name_column, print_section
from harness.errors import UserError
from harness.execute.runner import baselines, current
from harness.records.files import write_atomic
from harness.records.record import Record
from harness.records.store import Store
from harness.suite.load import load
from harness.suite.loaded import LoadedSuite
from zoo.registry import nearest


def board(suite: str, overrides: tuple[str, ...] = (), root: Path | None = None) -> Board:
    """The board of a suite's records.

    Raises:
        UserError: there are no records yet.
    """
    return board_of(load(suite, overrides), suite, root)


def board_of(loaded: LoadedSuite, suite: str, root: Path | None = None) -> Board:
    """The same for a suite that is loaded already; `suite` is what the user calls it."""
    store = Store(loaded.name, root)
    records = _records(loaded, store, suite)
    return rank(loaded.described(()), records, baselines(loaded, store))


def publish(suite: str, overrides: tuple[str, ...] = (), root: Path | None = None) -> tuple[int, Path]:
    """Write a suite's records as published ones, with the board in Markdown; returns how many, and the folder.

    Raises:
        UserError: there are no records yet.
    """
    loaded = load(suite, overrides)
    store = Store(loaded.name, root)
    records = _records(loaded, store, suite)
    return len(records), publish_records(loaded, store, records)


def publish_records(
    loaded: LoadedSuite, store: Store, records: list[Record], contributions: Iterable[Mapping[str, Any]] = ()
) -> Path:
    """Write these records as the published ones, and their board; returns the folder.

    `contributions` are listed in published.json after those that stand there.
    """
    described = loaded.described(record.spec for record in records)
    made = rank(described, records, baselines(loaded, store))
    listed = [*store.published.index.get("contributions", []), *contributions]
    store.publish(records, described, **({"contributions": listed} if listed else {}))
    write_atomic(store.folder / "board.md", markdown(made))
    return store.folder


def _records(loaded: LoadedSuite, store: Store, suite: str) -> list[Record]:
    records = current(loaded, store)
    if not any(record.spec.kind == "final" for record in records):
        raise UserError(f"no finished runs yet; start them with: zoobench run {suite}", file=store.folder)
    return records


def rank(suite: Mapping[str, Any], records: Iterable[Record], baselines: Iterable[Mapping[str, Any]]) -> Board:
    """Rank records as their suite, described by `LoadedSuite.described`, says; by name where it is unknown."""
    order = [(task, track) for task, track in suite.get("order", ())]
    rules = {name: suite[name] for name in ("about", "reference", "targets", "only") if name in suite}
    return boards.make(suite.get("suite", ""), records, baselines, order=order, **rules)


def compare(
    first: str, second: str, suite: str, overrides: tuple[str, ...] = (), root: Path | None = None
) -> list[dict[str, Any]]:
    """Two rows of a board, task by task: their seeds side by side, and whether the board's model separates them."""
    made = board(suite, overrides, root)
    tables = [(task, {row.architecture: row for row in task.rows}) for task in made.tasks]
    names = sorted({name for _, rows in tables for name in rows})
    for name in (first, second):
        if name not in names:
            raise UserError(f"no row {name!r} on the board of {suite}{nearest(name, names)}")
    # one of the two may not run on a task
    return [_compared(task, rows[first], rows[second]) for task, rows in tables if {first, second} <= rows.keys()]


def _compared(task: TaskBoard, a: Row, b: Row) -> dict[str, Any]:
    scores = {seed: [a.by_seed[seed], b.by_seed[seed]] for seed in sorted({*a.seeds} & {*b.seeds})}
    return {
        "task": task.task,
        "track": task.track,
        "metric": task.metric,
        "seeds": list(scores),
        "scores": {str(seed): pair for seed, pair in scores.items()},
        "difference": sum(x - y for x, y in scores.values()) / len(scores) if scores else None,
        "separated": a.separated_from(b) if a.ranked and b.ranked else None,
        "detectable": task.mdd,
        "note": "; ".join(f"{row.architecture}: {row.reason}" for row in (a, b) if row.reason),
    }


def show_comparison(first: str, second: str, rows: list[dict[str, Any]], console: Console) -> None:
    """Print a comparison as a table."""
    signed = "{:+.4f}".format
    columns = (
        name_column(lambda row: " · ".join(filter(None, (row["task"], row["track"]))), "task"),
        name_column(lambda row: row["metric"], "metric"),
        Column("seeds", lambda row: cell(len(row["seeds"]), str)),
        Column(f"{first} − {second}", lambda row: cell(row["difference"], signed)),
        Column("detectable", lambda row: cell(row["detectable"], signed)),
        name_column(
            lambda row: {True: "yes", False: "no"}.get(row["separated"], row["note"] or "not ranked"), "separated"
        ),
    )
    print_section(Section(rows, f"{first} against {second}", "", columns, lines(columns, rows)), console)
