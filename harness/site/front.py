"""The matrix of the front page: every row of every board, against every board."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.board.aggregate import scale
from harness.board.model import Scale, TaskBoard
from harness.site.suites import Suite
from harness.site.views import slug
from harness.stats.aggregate import normalised
from harness.stats.overall import FEWEST, Overall, overall
from harness.table.rows import Row

REFERENCE = "pre_ln"
"""The architecture that costs are compared with."""


@dataclass(frozen=True)
class Column:
    """One board: a task of a suite, in one of its tracks."""

    suite: str
    task: TaskBoard
    role: str
    scale: Scale | None
    """What 0 and 1 are; None where the best row beats no baseline for sure."""

    @property
    def title(self) -> str:
        return f"{self.suite}: {self.task.title}"

    @property
    def href(self) -> str:
        """The address of its table."""
        return f"suites/{slug(self.suite)}.html#{slug(self.task.title)}"

    def normalise(self, row: Row) -> float | None:
        """A row's mean score on the board's scale; None where it is not ranked or there is no scale."""
        if self.scale is None or row.mean is None or not row.ranked:
            return None
        return normalised([row.mean], self.scale.zero, self.scale.one)[0]


@dataclass(frozen=True)
class Cell:
    """One row on one board."""

    column: Column
    row: Row | None
    """None where the board does not have it."""

    @property
    def value(self) -> float | None:
        """The normalised score."""
        return None if self.row is None else self.column.normalise(self.row)

    @property
    def kind(self) -> str:
        """`ranked`, `unranked`, a status such as `unsupported` or `diverged`, or `absent`."""
        if self.row is None:
            return "absent"
        if self.row.ranked:
            return "ranked"
        return "unranked" if self.row.status == "ok" else self.row.status

    @property
    def about(self) -> str:
        """What the cell says, in words."""
        if self.row is None:
            return f"{self.column.title}: not on this board"
        row, task = self.row, self.column.task
        if not row.ranked:
            return f"{self.column.title}: {row.reason or row.status}"
        half = "" if row.low is None or row.high is None else f" ± {(row.high - row.low) / 2:.3f}"
        ranks = "–".join(map(str, sorted({*(row.ranks or ())})))
        return f"{self.column.title}: {task.metric} {row.mean:.3f}{half}, rank {ranks} of {len(task.ranked)}"


@dataclass(frozen=True)
class Line:
    """One architecture, as boards call it, over all boards."""

    name: str
    architecture: str
    """The registered name behind it."""
    overall: Overall | None
    """None where it is on too few tasks of the leading suite."""
    compute: float | None
    """Training FLOPs over those of the reference, geometric mean over the boards that have both."""
    speed: float | None
    """Training speed over that of the reference, the same way."""
    cells: list[Cell]


@dataclass(frozen=True)
class Matrix:
    """Everything published: lines by their overall rank, columns in the order of their suites."""

    leading: str
    """The suite whose boards make the overall rank; empty if all do."""
    columns: list[Column]
    lines: list[Line]

    @property
    def leader(self) -> Line | None:
        """The first line that has an overall rank."""
        return next((line for line in self.lines if line.overall), None)


def matrix(suites: Sequence[Suite]) -> Matrix:
    """Every architecture on every board of these suites, which come by their number of runs, most first.

    The overall rank is over the boards of the first suite, where all rows have one size and one budget; over those of
    all suites if it has too few tasks for an order of its own.
    """
    leading = suites[0].name if len({task.task for task in suites[0].board.tasks}) >= FEWEST else ""
    columns = [_column(suite, task) for suite in suites for task in suite.board.tasks]
    names = {record.spec.architecture_label: record.spec.architecture for suite in suites for record in suite.finals}
    ranking = [column for column in columns if leading in ("", column.suite)]
    places = overall([(column.task.task, _scores(column.task)) for column in ranking])
    rows = [{row.architecture: row for row in column.task.rows} for column in columns]
    lines = []
    for name, architecture in names.items():
        own = [Cell(column, known.get(name)) for column, known in zip(columns, rows, strict=True)]
        pairs = [(known[name], known[REFERENCE]) for known in rows if {name, REFERENCE} <= known.keys()]
        compute = _ratio([(row.flops, other.flops) for row, other in pairs])
        speed = _ratio([(row.tokens_per_s, other.tokens_per_s) for row, other in pairs])
        lines.append(Line(name, architecture, places.get(name), compute, speed, own))
    return Matrix(leading, columns, sorted(lines, key=_position))


def _column(suite: Suite, task: TaskBoard) -> Column:
    role = next((record.spec.role for record in suite.finals if record.spec.task_label == task.task), "lm")
    ranked = [row.architecture for row in task.ranked]
    return Column(suite.name, task, role, scale(task, "", ranked))


def _scores(task: TaskBoard) -> dict[str, list[float]]:
    """The scores of the ranked rows, larger where better."""
    return {row.architecture: [-task.cost(score) for score in row.scores] for row in task.ranked}


def _ratio(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    known = [math.log(own / other) for own, other in pairs if own and other]
    return math.exp(statistics.fmean(known)) if known else None


def _position(line: Line) -> tuple[int, float, str]:
    """By overall rank; then by the mean of the normalised scores."""
    if line.overall:
        return 0, line.overall.rank, line.name
    values = [cell.value for cell in line.cells if cell.value is not None]
    return (1, -statistics.fmean(values), line.name) if values else (2, 0.0, line.name)
