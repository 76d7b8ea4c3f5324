"""The rows of a board.

Each field declared with `measured` is one column: what it is read from, its title, and how it is written. A new column
is one more such field: JSON and CSV have it by its name, and with a title it stands in every table.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from harness.records.record import ORIGINS, Record
from harness.units import clock, human


@dataclass(frozen=True)
class Runs:
    """The runs behind one row."""

    finals: Sequence[Record]
    """One for each seed."""
    trials: Sequence[Record] | None = None
    """None where no architecture was tuned."""


Reading: TypeAlias = "Callable[[Record], float | None]"
"""What is read from one record."""
Summary: TypeAlias = "Callable[[Runs, Reading], float | str | None]"
"""How the readings of many runs become one value."""


def finite(value: float | None) -> float | None:
    """The number, or None where there is none or it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def _known(records: Iterable[Record], read: Reading) -> list[float]:
    return [value for record in records if (value := read(record)) is not None and math.isfinite(value)]


def seeds_mean(runs: Runs, read: Reading) -> float | None:
    """The mean over the seeds that ended well."""
    values = _known((r for r in runs.finals if r.status == "ok"), read)
    return statistics.fmean(values) if values else None


def seeds_first(runs: Runs, read: Reading) -> float | None:
    """What is the same for all seeds."""
    return next(iter(_known(runs.finals, read)), None)


def seeds_worst(runs: Runs, read: Reading) -> float | None:
    """The value furthest from zero."""
    return max(_known(runs.finals, read), key=abs, default=None)


def seeds_common(runs: Runs, read: Reading) -> float | None:
    """The value that all seeds have in common; None where they differ."""
    values = {read(record) for record in runs.finals}
    return values.pop() if len(values) == 1 else None


def trials_sum(runs: Runs, read: Reading) -> float | None:
    """The sum over the trials that ran."""
    values = _known((t for t in runs.trials or () if t.status != "unsupported"), read)
    return math.fsum(values) if values else None


def trials_sum_on_one_machine(runs: Runs, read: Reading) -> float | None:
    """The same for seconds, which add up only where all trials ran on the same hardware."""
    kinds = {trial.provenance.hardware for trial in runs.trials or () if trial.status == "ok"}
    return trials_sum(runs, read) if len(kinds) < 2 else None


def trials_count(runs: Runs, read: Reading) -> float | None:
    """How many trials there were."""
    return None if runs.trials is None else len(runs.trials)


def weakest_origin(runs: Runs, read: Reading) -> str:
    """Who vouches for a row, trials included: as many as vouch for the least trusted of its runs."""
    return max((r.origin.kind for r in (*runs.finals, *(runs.trials or ()))), key=ORIGINS.index)


@dataclass(frozen=True)
class Measured:
    """A column of a board: what it is read from and how it is shown."""

    summary: Summary
    read: Reading
    title: str = ""
    """Empty for one that only JSON and CSV have."""
    about: str = ""
    text: Callable[[Any], str] = str
    optional: bool = True
    """Left out on narrow terminals, the last of them first."""
    timed: bool = False
    """Comparable only where all runs come from the same machine."""
    usual: Any = None
    """What is worth no column where all rows have it."""


def measured(summary: Summary, read: Reading, *shown: Any, **more: Any) -> Any:
    """A field of `Row` that is measured on the runs; the arguments are those of `Measured`."""
    return dataclasses.field(default=None, metadata={"measured": Measured(summary, read, *shown, **more)})


def _in(unit: str, figures: int = 2) -> Callable[[float], str]:
    return lambda number: human(number, unit, figures)


@dataclass(frozen=True, slots=True)
class Row:
    """One architecture on one task, over its seeds."""

    architecture: str
    status: str
    """`ok` if every seed is, else the worst of them."""
    reason: str
    """Why the row is not ranked; empty where it is."""
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    """The 95% interval of the mean; see `harness.stats.Estimate`."""
    sd: float | None = None
    seeds: list[int] = field(default_factory=list)
    """Seeds that have a score."""
    scores: list[float] = field(default_factory=list)
    """The test score of each of `seeds`."""
    rank_low: int | None = None
    rank_high: int | None = None
    """The ranks this architecture may hold; None where it is not ranked."""
    letters: str = ""
    also: dict[str, float] = field(default_factory=dict)
    """Means over the seeds of other scores of the task, by name."""

    params: int | None = measured(seeds_first, lambda r: r.size.params if r.size else None)
    params_non_embedding: int | None = measured(
        seeds_first, lambda r: r.size.params_non_embedding if r.size else None,
        "params", "without embeddings", _in("", 3), optional=False,
    )  # fmt: skip
    params_active: int | None = measured(
        seeds_first, lambda r: r.size.params_active if r.size else None, "active", "of them, at one step", _in("", 3)
    )
    mismatch: float | None = measured(
        seeds_worst, lambda r: r.size.mismatch if r.size else None,
        "off", "from the size all are matched to", "{:+.1%}".format,
    )  # fmt: skip
    flops: float | None = measured(
        seeds_mean, lambda r: r.budget.used.flops, "compute", "to train one seed", _in("FLOP"), optional=False
    )
    tokens: float | None = measured(seeds_mean, lambda r: r.budget.used.tokens, "tokens", "to train one seed", human)
    seconds: float | None = measured(
        seeds_mean, lambda r: r.budget.used.seconds, "time", "to train one seed", clock, timed=True
    )
    trials: int | None = measured(trials_count, lambda r: None)
    tuning_flops: float | None = measured(
        trials_sum, lambda r: r.budget.used.flops, "tuning", "of all its trials", _in("FLOP")
    )
    tuning_seconds: float | None = measured(trials_sum_on_one_machine, lambda r: r.budget.used.seconds, timed=True)
    tokens_per_s: float | None = measured(
        seeds_mean, lambda r: r.speed.train_tokens_per_s,
        "speed", "training", lambda speed: f"{human(speed)} tok/s", optional=False, timed=True,
    )  # fmt: skip
    relative_speed: float | None = measured(
        seeds_mean, lambda r: r.speed.relative,
        "× ref", "speed over that of a reference timed in turn", "{:.2f}".format, timed=True,
    )  # fmt: skip
    decode_seconds: float | None = measured(
        seeds_mean, lambda r: r.speed.decode_seconds,
        "decode", "one token of one sequence", lambda seconds: f"{1000 * seconds:.2g} ms", timed=True,
    )  # fmt: skip
    decode_relative: float | None = measured(seeds_mean, lambda r: r.speed.decode_relative, timed=True)
    latency_seconds: float | None = measured(
        seeds_mean, lambda r: r.speed.latency_seconds,
        "latency", "one example alone", lambda seconds: f"{1000 * seconds:.2g} ms", timed=True,
    )  # fmt: skip
    latency_relative: float | None = measured(seeds_mean, lambda r: r.speed.latency_relative, timed=True)
    reference_step_seconds: float | None = measured(
        seeds_mean, lambda r: r.speed.reference.step_seconds if r.speed.reference else None, timed=True
    )
    peak_memory: int | None = measured(seeds_worst, lambda r: r.memory.peak_bytes, "memory", "peak", _in("B"))
    state_bytes: int | None = measured(
        seeds_first, lambda r: r.size.state_bytes if r.size else None, "state", "recurrent", _in("B")
    )
    lr: float | None = measured(seeds_common, lambda r: r.spec.train.lr if r.spec.train else None)
    width: int | None = measured(seeds_first, lambda r: r.size.width if r.size else None)
    depth: int | None = measured(seeds_first, lambda r: r.size.depth if r.size else None)
    origin: str = measured(
        weakest_origin, lambda r: None, "origin", "made here, by others and reviewed, or only reported",
        optional=False, usual=ORIGINS[0],
    )  # fmt: skip

    @property
    def ranked(self) -> bool:
        return self.rank_low is not None

    @property
    def ranks(self) -> tuple[int, int] | None:
        """The ranks it may hold, both ends included; None where it is not ranked."""
        return None if self.rank_low is None or self.rank_high is None else (self.rank_low, self.rank_high)

    @property
    def by_seed(self) -> dict[int, float]:
        return dict(zip(self.seeds, self.scores, strict=True))

    def separated_from(self, other: Row) -> bool:
        """Whether the two rows, both ranked, have no group letter in common."""
        return not set(re.findall(r"[a-z]\d*", self.letters)) & set(re.findall(r"[a-z]\d*", other.letters))

    def replace(self, **changes: Any) -> Row:
        return dataclasses.replace(self, **changes)

    def without_times(self) -> Row:
        """For a table of runs on different machines, where no two seconds, nor ratios of them, can be compared."""
        return self.replace(**{name: None for name, column in MEASURED.items() if column.timed})


MEASURED: dict[str, Measured] = {
    f.name: f.metadata["measured"] for f in dataclasses.fields(Row) if "measured" in f.metadata
}
"""The measured columns by field, in the order of the tables."""
severity = ("ok", "diverged", "timeout", "oom", "failed", "damaged", "unsupported").index
"""How bad a status is: 0 for `ok`."""


def row(architecture: str, runs: Runs, reason: str) -> Row:
    """The row of one architecture, not yet ranked."""
    scored = [(r.spec.seed, value) for r in runs.finals if (value := r.score) is not None]
    scores = [value for _, value in scored]
    others = dict.fromkeys(name for r in runs.finals for name in r.metrics.also)
    also = {name: seeds_mean(runs, _test_score(name)) for name in others}
    return Row(
        architecture=architecture,
        status=max((r.status for r in runs.finals), key=severity),
        reason=reason,
        mean=statistics.fmean(scores) if scores else None,
        sd=_sd(scores),
        seeds=[seed for seed, _ in scored],
        scores=scores,
        also={name: value for name, value in also.items() if value is not None},
        **{name: column.summary(runs, column.read) for name, column in MEASURED.items()},  # type: ignore[arg-type]
    )


def _test_score(name: str) -> Reading:
    return lambda record: record.metrics.test.get(name)


def _sd(scores: Sequence[float]) -> float | None:
    if len(scores) < 2:
        return None
    middle = statistics.fmean(scores)
    return math.sqrt(math.fsum((s - middle) ** 2 for s in scores) / (len(scores) - 1))


def total_cost(row: Row, *, counted: bool = True) -> float | None:
    """FLOPs (or seconds) of one seed's training and of every trial of the row."""
    final, tried = (row.flops, row.tuning_flops) if counted else (row.seconds, row.tuning_seconds)
    return None if final is None else final + (tried or 0.0)
