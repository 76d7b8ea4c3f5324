"""Two rows of boards, task by task: how far apart they are, how sure that is, and what each costs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.board.model import Board, TaskBoard
from harness.board.tables import Cell, Section, cell, lines, name_column
from harness.board.tables import Column as TableColumn
from harness.table.rows import Row, total_cost
from harness.units import NONE

Verdict = Literal["better", "worse", "undecided", "not compared"]
COSTS: dict[str, Callable[[Row], float | None]] = {
    "compute": total_cost,
    "time": lambda row: row.seconds,
    "state": lambda row: row.state_bytes,
    "params": lambda row: row.params_non_embedding,
}
"""What one seed costs: FLOPs with those of all trials of its row, seconds of training, bytes that decoding carries, and
parameters without embeddings. Seconds are known only where all runs of a table come from the same machine."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two rows on one task, in one track."""

    suite: str
    task: str
    track: str
    metric: str
    first: float | None
    second: float | None
    """The means over their seeds."""
    seeds: list[int]
    """Those that both have."""
    difference: float | None
    """First − second."""
    low: float | None
    high: float | None
    """Its 95% interval: the halves of both rows' intervals, squared, add up. Each half is by the row's moderated
    variance (see `harness.stats.Estimate`), and the errors of two rows are independent. The verdict is not read off
    it: that is a test of all pairs of the table at once, which asks for more."""
    verdict: Verdict
    """Of the first row, by the group letters of the table."""
    detectable: float | None
    """The smallest difference that the table shows with 80% power."""
    costs: dict[str, float]
    """First / second, of `COSTS` that are known of both."""
    note: str
    """Why a row is not ranked."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two architectures on every task that has rows of both."""

    first: str
    second: str
    verdict: str
    """In a sentence."""
    tasks: list[Difference]


def compare(boards: Sequence[Board], first: str, second: str) -> Comparison:
    """Compare two rows wherever both are; a board's own judgement of all pairs decides."""
    found = []
    for board in boards:
        for task in board.tasks:
            rows = {row.architecture: row for row in task.rows if row.architecture in (first, second)}
            if {first, second} == rows.keys():
                found.append(_difference(board.suite, task, rows[first], rows[second]))
    return Comparison(first, second, _sentence(first, second, found), found)


def _difference(suite: str, task: TaskBoard, a: Row, b: Row) -> Difference:
    difference = None if a.mean is None or b.mean is None else a.mean - b.mean
    half = _half(a, b)
    known = {name: (read(a), read(b)) for name, read in COSTS.items()}
    return Difference(
        suite=suite,
        task=task.task,
        track=task.track,
        metric=task.metric,
        first=a.mean,
        second=b.mean,
        seeds=sorted({*a.seeds} & {*b.seeds}),
        difference=difference,
        low=None if difference is None or half is None else difference - half,
        high=None if difference is None or half is None else difference + half,
        verdict=_verdict(task, a, b),
        detectable=task.mdd,
        costs={name: one / other for name, (one, other) in known.items() if one and other},
        note="; ".join(f"{row.architecture}: {row.reason}" for row in (a, b) if row.reason),
    )


def _half(a: Row, b: Row) -> float | None:
    """Half of the interval of a difference; None where one of the rows has none."""
    ends = [(row.low, row.high) for row in (a, b)]
    halves = [(high - low) / 2 for low, high in ends if low is not None and high is not None]
    return math.hypot(*halves) if len(halves) == 2 else None


def _verdict(task: TaskBoard, a: Row, b: Row) -> Verdict:
    if not (a.ranked and b.ranked) or a.mean is None or b.mean is None:
        return "not compared"
    if not a.separated_from(b):
        return "undecided"
    return "better" if task.cost(a.mean) < task.cost(b.mean) else "worse"


def _sentence(first: str, second: str, found: Sequence[Difference]) -> str:
    """Like `rwkv4 is better than pre_ln on 2 of 3 tasks, worse on none; 1 undecided; it costs 0.90× the compute`."""
    if not found:
        return f"{first} and {second} have no task in common"
    count = {verdict: sum(one.verdict == verdict for one in found) for verdict in ("better", "worse", "undecided")}
    left = len(found) - sum(count.values())
    what = "tables" if any(one.track for one in found) or len({one.suite for one in found}) > 1 else "tasks"
    what = what[:-1] if len(found) == 1 else what
    parts = [
        f"{first} is better than {second} on {count['better'] or 'none'} of {len(found)} {what}, "
        f"worse on {count['worse'] or 'none'}"
    ]
    parts += [f"{count['undecided']} undecided"] if count["undecided"] else []
    parts += [f"{left} not compared"] if left else []
    compute = [one.costs["compute"] for one in found if "compute" in one.costs]
    if compute:
        average = math.exp(math.fsum(map(math.log, compute)) / len(compute))
        parts.append(f"it costs {average:.2f}× the compute" + (" (geometric mean)" if len(compute) > 1 else ""))
    return "; ".join(parts)


def section(found: Comparison) -> Section:
    """A comparison as a table."""

    def mean(value: float | None) -> Cell:
        return cell(value, "{:.4g}".format)

    def ratio(name: str) -> TableColumn:
        about = f"{name} of {found.first} over that of {found.second}"
        return TableColumn(f"{name} ×", lambda one: cell(one.costs.get(name), "{:.2f}".format), about, optional=True)

    suites = [name_column(lambda one: one.suite, "suite")] if len({one.suite for one in found.tasks}) > 1 else []
    columns = [
        *suites,
        name_column(lambda one: " · ".join(filter(None, (one.task, one.track))), "task"),
        name_column(lambda one: one.metric, "metric"),
        TableColumn(found.first, lambda one: mean(one.first)),
        TableColumn(found.second, lambda one: mean(one.second)),
        TableColumn("difference", lambda one: Cell(_interval(one), one.difference), "first − second, 95% interval"),
        name_column(lambda one: one.verdict, found.first),
        *map(ratio, COSTS),
        name_column(lambda one: one.note or NONE, "note"),
    ]
    if not any(one.note for one in found.tasks):
        columns.pop()
    return Section(found, f"{found.first} against {found.second}", "", columns, lines(columns, found.tasks))


def _interval(one: Difference) -> str:
    if one.difference is None:
        return NONE
    between = "" if one.low is None or one.high is None else f" [{one.low:+.3f}, {one.high:+.3f}]"
    return f"{one.difference:+.3f}{between}"
