"""What a board is made of. Scores are in the metric's own unit; a field is None where nothing honest can be said."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from harness.board.across.model import Across


@dataclass(frozen=True, slots=True)
class Row:
    """One architecture on one task, over its seeds."""

    architecture: str
    status: str
    """`ok` if every seed is, else the worst of them."""
    reason: str
    """Why the row is not ranked; empty where it is."""
    mean: float | None
    low: float | None
    high: float | None
    """95% interval of the mean; see `harness.stats.Estimate`."""
    sd: float | None
    seeds: list[int]
    """Seeds that have a score."""
    scores: list[float]
    """Test score of each of `seeds`."""
    rank_low: int | None
    rank_high: int | None
    """The places this architecture may hold; None where it is not ranked."""
    letters: str
    also: dict[str, float]
    """Means over the seeds of other scores of the task, by name."""
    params: int | None
    params_non_embedding: int | None
    mismatch: float | None
    """Size over target, minus one; the worst over the seeds."""
    flops: float | None
    tokens: float | None
    seconds: float | None
    tokens_per_s: float | None
    relative_speed: float | None
    """Tokens a second over those of the reference timed in turn with the run; see `harness.reference`."""
    reference_step_seconds: float | None
    """Budget used and training speed, means over the seeds. What is measured in seconds, ratios to the reference
    included, is None where hardware differs."""
    peak_memory: int | None
    state_bytes: int | None
    lr: float | None
    """None where the seeds differ."""
    width: int | None
    depth: int | None
    trials: int | None = None
    tuning_flops: float | None = None
    tuning_seconds: float | None = None
    """Trials of this row, and what all of them cost; None without tuning. Seconds are None where hardware differs."""

    @property
    def ranked(self) -> bool:
        return self.rank_low is not None

    @property
    def groups(self) -> frozenset[str]:
        """Its letters: two ranked rows are separated exactly when they have none in common."""
        return frozenset(re.findall(r"[a-z]\d*", self.letters))

    @property
    def places(self) -> tuple[int, int] | None:
        """The places it may hold, both ends included; None where it is not ranked."""
        return None if self.rank_low is None or self.rank_high is None else (self.rank_low, self.rank_high)


@dataclass(frozen=True, slots=True)
class Line:
    """A score without training, drawn as a line through the table."""

    name: str
    value: float
    about: str


@dataclass(frozen=True, slots=True)
class TaskBoard:
    """The ranking of one task in one track, best first; ranked rows, then unranked, then unsupported."""

    task: str
    metric: str
    unit: str
    higher_is_better: bool
    rows: list[Row]
    baselines: list[Line]
    """Best first, without chance."""
    chance: float | None
    notes: list[str]
    mdd: float | None
    """The smallest difference that would have been separated with 80% power."""
    track: str = ""
    equal: str = ""
    """What is held equal over the rows, in words."""
    only: list[str] = field(default_factory=list)
    """The architectures that the suite asks to play this task; empty for all of them."""

    @property
    def title(self) -> str:
        """`text`, or `text · params` where there are tracks."""
        return f"{self.task} · {self.track}" if self.track else self.task

    @property
    def lines(self) -> list[Line]:
        """Baselines and chance, best first."""
        lines = list(self.baselines)
        if self.chance is not None and all(b.name != "chance" for b in lines):
            lines.append(Line("chance", self.chance, "guessing"))
        return sorted(lines, key=lambda b: (self.key(b.value), b.name))

    def key(self, score: float) -> float:
        """Smaller is better."""
        return -score if self.higher_is_better else score

    def entries(self) -> list[Row | Line]:
        """Rows with the baselines at their place among the ranked ones."""
        ranked: list[Row | Line] = [row for row in self.rows if row.ranked]
        placed = sorted([*ranked, *self.lines], key=lambda e: self.key(_score(e)))
        return [*placed, *(row for row in self.rows if not row.ranked)]


def _score(entry: Row | Line) -> float:
    value = entry.value if isinstance(entry, Line) else entry.mean
    assert value is not None
    return value


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
    """The places each architecture may hold, track by track; None where it is not ranked. Best on average first."""
    reversals: list[Reversal]
    agreement: list[tuple[str, str, float]]
    """Kendall's τ-b between the mean scores of two tracks, over the architectures ranked in both."""
    undecided: int
    """Pairs separated in some track and not in some other, without a reversal."""


@dataclass(frozen=True, slots=True)
class Board:
    """Every task of a suite, in every track."""

    suite: str
    about: str
    tasks: list[TaskBoard]
    notes: list[str]
    contrasts: list[Contrast] = field(default_factory=list)
    """One for each task that is played in several tracks."""
    across: list[Across] = field(default_factory=list)
    """One for each track."""
    defaults: dict[str, list[str]] = field(default_factory=dict)
    """By architecture, what it brought along that the suite did not set."""

    def to_rows(self) -> list[dict[str, Any]]:
        """Flat rows for machines; baselines are rows of status `baseline`."""
        rows = []
        for task in self.tasks:
            entries: list[Row | Line] = [*task.rows, *task.lines]
            head = {"task": task.task, "track": task.track, "metric": task.metric}
            rows += [head | _flat(entry) for entry in entries]
        return rows


def _flat(entry: Row | Line) -> dict[str, Any]:
    if isinstance(entry, Row):
        return dataclasses.asdict(entry) | {"ranked": entry.ranked}
    blank: dict[str, Any] = {field.name: None for field in dataclasses.fields(Row)}
    told = {"architecture": entry.name, "status": "baseline", "reason": entry.about, "mean": entry.value}
    return blank | {"seeds": [], "scores": [], "letters": "", "also": {}, "ranked": False} | told
