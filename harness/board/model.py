"""What a board is made of: attributes are the keys of board.json. What cannot be known is None."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from harness.board.aggregate.model import Aggregate
from harness.board.rows import Row


@dataclass(frozen=True, slots=True)
class Baseline:
    """A score that needs no training, shown among the rows it would stand between."""

    name: str
    value: float
    about: str


@dataclass(frozen=True, slots=True)
class TaskBoard:
    """The ranking of one task in one track. Scores are in the metric's own unit."""

    task: str
    metric: str
    unit: str
    higher_is_better: bool
    rows: list[Row]
    """Ranked rows, best first; then unranked ones, then what is unsupported."""
    baselines: list[Baseline]
    """Best first, without chance."""
    chance: float | None
    notes: list[str]
    mdd: float | None
    """The minimum detectable difference: the smallest one that is separated with 80% power."""
    track: str = ""
    equal: str = ""
    """What is held equal over the rows, in words."""
    only: list[str] = field(default_factory=list)
    """The architectures that the suite runs on this task; empty for all of them."""

    @property
    def title(self) -> str:
        """`text`, or `text · params` where there are tracks."""
        return f"{self.task} · {self.track}" if self.track else self.task

    @property
    def direction(self) -> str:
        """The metric in words, like `accuracy, higher is better`."""
        if not self.metric:
            return "no scores"
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.metric}{unit}, {'higher' if self.higher_is_better else 'lower'} is better"

    @property
    def ranked(self) -> list[Row]:
        """The ranked rows, best first."""
        return [row for row in self.rows if row.ranked]

    def ranked_row(self, architecture: str) -> Row | None:
        """The row of an architecture, if it is ranked."""
        return next((row for row in self.ranked if row.architecture == architecture), None)

    @property
    def lines(self) -> list[Baseline]:
        """Baselines and chance, best first."""
        lines = list(self.baselines)
        if self.chance is not None and all(line.name != "chance" for line in lines):
            lines.append(Baseline("chance", self.chance, "guessing"))
        return sorted(lines, key=lambda line: (self.cost(line.value), line.name))

    def cost(self, score: float) -> float:
        """A score turned so that smaller is better."""
        return -score if self.higher_is_better else score

    def entries(self) -> list[Row | Baseline]:
        """The rows, with the baselines at their place among the ranked ones."""
        scored: list[tuple[float, Row | Baseline]] = [
            (self.cost(row.mean), row) for row in self.ranked if row.mean is not None
        ]
        scored += [(self.cost(line.value), line) for line in self.lines]
        placed = [entry for _, entry in sorted(scored, key=lambda pair: pair[0])]
        return [*placed, *(row for row in self.rows if not row.ranked)]


@dataclass(frozen=True, slots=True)
class Reversal:
    """Two architectures that are separated one way in some tracks and the other way in others."""

    first: str
    second: str
    first_better: list[str]
    """Tracks in which `first` is separated above `second`."""
    second_better: list[str]


@dataclass(frozen=True, slots=True)
class Contrast:
    """One task over several tracks: whether the ranking depends on what is held equal."""

    task: str
    tracks: list[str]
    places: dict[str, list[tuple[int, int] | None]]
    """The ranks each architecture may hold, by track; None where it is not ranked. Best on average first."""
    reversals: list[Reversal]
    agreement: list[tuple[str, str, float]]
    """Kendall's τ-b between the mean scores of two tracks, over the architectures ranked in both."""
    undecided: int
    """Pairs that are separated in one track and not in another, without a reversal."""


@dataclass(frozen=True, slots=True)
class Board:
    """Every task of a suite, in every track."""

    suite: str
    about: str
    tasks: list[TaskBoard]
    notes: list[str]
    contrasts: list[Contrast] = field(default_factory=list)
    """One for each task with several tracks."""
    across: list[Aggregate] = field(default_factory=list)
    """One for each track: what holds over its tasks."""
    defaults: dict[str, list[str]] = field(default_factory=dict)
    """By architecture, the settings of its own that the suite did not set."""

    def to_rows(self) -> list[dict[str, Any]]:
        """Flat rows for machines; baselines are rows of status `baseline`."""
        return [
            {"task": task.task, "track": task.track, "metric": task.metric}
            | dataclasses.asdict(row)
            | {"ranked": row.ranked}
            for task in self.tasks
            for row in [*task.rows, *(Row(line.name, "baseline", line.about, line.value) for line in task.lines)]
        ]
