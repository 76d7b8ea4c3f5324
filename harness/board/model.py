"""What a board is made of: attributes are the keys of its JSON. What cannot be known is None."""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.table.rows import Row


@dataclass(frozen=True, slots=True)
class Baseline:
    """A score that needs no training, shown among the rows it would stand between."""

    name: str
    value: float
    about: str


@dataclass(frozen=True)
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

    @cached_property
    def ranked(self) -> list[Row]:
        """The ranked rows, best first."""
        return [row for row in self.rows if row.ranked]

    def ranked_row(self, architecture: str) -> Row | None:
        """The row of an architecture, if it is ranked."""
        return self._ranked_by_name.get(architecture)

    @cached_property
    def _ranked_by_name(self) -> dict[str, Row]:
        return {row.architecture: row for row in self.ranked}

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

        def cost(entry: Row | Baseline) -> float:
            return self.cost((entry.mean or 0.0) if isinstance(entry, Row) else entry.value)

        placed: list[Row | Baseline] = [*self.ranked, *self.lines]
        return [*sorted(placed, key=cost), *(row for row in self.rows if not row.ranked)]


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
class Scale:
    """What normalised scores of one task are measured by."""

    task: str
    metric: str
    zero: float
    zero_name: str
    """The best baseline that the reference beats with every seed and the whole 95% interval of its own seeds."""
    one: float
    one_name: str
    """The reference, whose mean is 1."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One architecture over all tasks."""

    architecture: str
    scored: int
    """Tasks on which it is ranked."""
    missing: dict[str, str]
    """Why it has no score, by task."""
    iqm: float | None
    low: float | None
    high: float | None
    """The interquartile mean of the normalised scores and its interval; None where no task can be normalised."""
    mean: float | None
    """The mean of the normalised scores, in which all that is missing counts."""
    rank: float
    """The mean over the tasks."""
    normalised: dict[str, list[float]]
    """Normalised scores of its seeds, by task; none where it has no score."""


@dataclass(frozen=True, slots=True)
class Improvement:
    """How probable it is that a run of the first is better than one of the second, averaged over tasks."""

    first: str
    second: str
    probability: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class RankTest:
    """Whether mean ranks differ, by Friedman's test, and by how much they must, by Nemenyi's."""

    statistic: float | None
    p: float | None
    difference: float
    """The critical difference of two mean ranks."""
    tasks_to_tell: int
    """The fewest tasks at which any difference could be seen among so many architectures."""
    groups: list[list[str]]
    """The largest sets that are not separated."""


@dataclass(frozen=True, slots=True)
class Target:
    """The validation score to reach on one task."""

    task: str
    metric: str
    value: float
    source: str
    """`suite`, or the row whose median run ends there."""
    reference: str
    """The row whose time is the unit."""


@dataclass(frozen=True, slots=True)
class TargetTimes:
    """How fast one architecture reaches the targets."""

    architecture: str
    score: float
    """From ratios to the reference: 1 is the reference's own, and no rival changes it."""
    score_to_best: float
    """From ratios to the fastest of the board: the AlgoPerf score."""
    reached: int
    times: dict[str, float | None]
    """The median over the seeds, by task, in the meter's unit."""
    ratios: dict[str, float | None]
    """To the reference's time."""
    to_best: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class TimeToTarget:
    """The time to target of every architecture, fastest first."""

    meter: str
    unit: str
    targets: list[Target]
    rows: list[TargetTimes]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """All tasks of one track together; with one task only times to its target, and only notes where no two rows have
    a score on every task."""

    track: str
    tasks: list[str]
    reference: str
    """The row that the suite names; empty where the best row of each task is the reference."""
    rows: list[Standing] = field(default_factory=list)
    """Best first."""
    scales: list[Scale] = field(default_factory=list)
    improvements: list[Improvement] = field(default_factory=list)
    """Every ordered pair, or on a large board those with the reference or best row."""
    ranking: RankTest | None = None
    race: TimeToTarget | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rung:
    """One architecture at one size of a ladder."""

    track: str
    compute: float
    """Training FLOPs."""
    loss: float
    """The mean over seeds."""
    multiplier: tuple[float, float, float] | None = None
    """The compute that the reference needs for this loss, over this compute, with its 90% interval; above 1 the row
    saves compute, and infinity is more than any."""


@dataclass(frozen=True, slots=True)
class Climb:
    """One architecture on a ladder, by L(C) = E + A C^−a."""

    architecture: str
    rungs: list[Rung]
    floor: float
    """E, which no compute gets below."""
    exponent: float
    """a."""
    predicted: tuple[float, float, float] | None
    """What the other rungs say of the last one's loss, with its 90% interval; None where they are too few."""
    beyond: tuple[float, float, float] | None
    """The multiplier at a rung that is as far above the last as that is above the one before it."""

    @property
    def foreseen(self) -> bool | None:
        """Whether the last rung is within its interval."""
        return None if self.predicted is None else self.predicted[1] <= self.rungs[-1].loss <= self.predicted[2]


@dataclass(frozen=True, slots=True)
class Ladder:
    """One task at sizes that grow together with their tokens: what each architecture makes of more compute."""

    task: str
    metric: str
    reference: str
    """The row that the suite names, or the best on the last rung."""
    rows: list[Climb]
    """Best on the last rung first."""
    crossings: list[tuple[str, str, float]]
    """Two architectures and the compute at which their curves cross, from the first rung to one beyond the last."""
    left_out: list[str]
    """Architectures that lack a rung."""


@dataclass(frozen=True, slots=True)
class Board:
    """Every task of a suite, in every track."""

    suite: str
    about: str
    tasks: list[TaskBoard]
    notes: list[str]
    contrasts: list[Contrast] = field(default_factory=list)
    """One for each task with several tracks."""
    ladders: list[Ladder] = field(default_factory=list)
    """One for each task whose tracks are sizes that grow together with their tokens."""
    across: list[Aggregate] = field(default_factory=list)
    """One for each track: what holds over its tasks."""
    defaults: dict[str, list[str]] = field(default_factory=dict)
    """By architecture, the settings of its own that the suite did not set."""

    def to_rows(self) -> list[dict[str, Any]]:
        """Flat rows for machines; baselines are rows of status `baseline`."""
        return [
            {"suite": self.suite, "task": task.task, "track": task.track, "metric": task.metric}
            | dataclasses.asdict(row)
            | {"ranked": row.ranked}
            for task in self.tasks
            for row in [*task.rows, *(Row(line.name, "baseline", line.about, line.value) for line in task.lines)]
        ]
