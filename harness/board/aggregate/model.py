"""The parts of what holds over several tasks. A time is None where the target was never reached: JSON knows no ∞."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    """Every ordered pair."""
    ranking: RankTest | None = None
    race: TimeToTarget | None = None
    notes: list[str] = field(default_factory=list)
