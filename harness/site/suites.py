"""The suites that a site shows: each with its board, its records, and what could not be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.board.model import Board, TaskBoard
from harness.board.ranking import TableKey, table_of
from harness.board.report import of_store
from harness.errors import UserError
from harness.records.record import Record
from harness.records.spec import Cell
from harness.records.store import Store, stores
from harness.table.comparable import grouped
from zoo.registry import nearest

MOST_PAGES = 1000
"""Rows of a suite that have pages of their own: writing one takes about 10 ms."""


@dataclass(frozen=True)
class Suite:
    """One suite with results."""

    name: str
    board: Board
    records: list[Record]
    described: dict[str, Any]
    """See `LoadedSuite.described`; empty for results of a version that did not keep it."""
    published: dict[str, str]
    """Hashes of the published files, by name; empty where some runs were made here."""

    @cached_property
    def finals(self) -> list[Record]:
        """The runs that the board ranks."""
        return [record for record in self.records if record.spec.kind == "final"]

    @cached_property
    def tables(self) -> dict[TableKey, list[Record]]:
        """Trials and final runs by the table they belong to."""
        return grouped((table_of(record), record) for record in self.records)

    @cached_property
    def _by_cell(self) -> dict[Cell, list[Record]]:
        return grouped((record.spec.cell, record) for record in self.finals)

    def runs(self, task: TaskBoard, architecture: str) -> list[Record]:
        """The final runs behind one row of a table, by seed."""
        own = self._by_cell.get(Cell(architecture, task.task, task.track), [])
        return sorted(own, key=lambda record: record.spec.seed)

    @cached_property
    def run_pages(self) -> bool:
        """Whether each row has a page about its runs; a large board would have many thousands."""
        return sum(len(task.rows) for task in self.board.tasks) <= MOST_PAGES


def read_suite(name: str, root: Path) -> Suite:
    """A suite made of what lies in its folder.

    Raises:
        UserError: it has no finished runs, or a file cannot be read.
    """
    store = Store(name, root)
    board, records = of_store(store)
    only_published = store.own_ids().isdisjoint(record.run_id for record in records)
    files = store.published.index.get("files", {}) if only_published else {}
    try:
        described = store.described()
    except UserError:  # as the board notes
        described = {}
    return Suite(name, board, records, described, files)


def read_suites(names: Sequence[str], root: Path) -> tuple[list[Suite], list[str]]:
    """The named suites, or all that have results, those of most runs first; and why others cannot be shown.

    Raises:
        UserError: a named suite has no results, or none has.
    """
    known = [store.suite for store in stores(root) if store.exists()]
    for name in names:
        if name not in known:
            raise UserError(f"no results of {name!r}{nearest(name, known)}", file=root)
    found, problems = list[Suite](), list[str]()
    for name in names or known:
        try:
            found.append(read_suite(name, root))
        except UserError as error:
            if names:
                raise
            problems.append(str(error))
    if not found:
        raise UserError("no results to show; make some with: zoobench run quick", file=root)
    return sorted(found, key=lambda suite: -len(suite.finals)), problems
