"""The typed record of a run: every key of `record.json` is an attribute (`record.budget.used.tokens`)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias, get_args

from harness.records.meters import Meters, StopRule
from harness.records.parts import OPTIONAL, BigInt, Mismatch, Part, convert
from harness.records.spec import SCHEMA, RunSpec
from tasks.base import Task

Status: TypeAlias = Literal["ok", "diverged", "oom", "timeout", "unsupported", "failed", "damaged"]
"""`damaged` is what stands for a record that cannot be read; no file has it."""
STATUSES: tuple[Status, ...] = get_args(Status)
OriginKind: TypeAlias = Literal["made here", "reviewed", "reported"]
ORIGINS: tuple[OriginKind, ...] = get_args(OriginKind)
"""Who vouches for a record, the best reason to believe it first."""
Scores: TypeAlias = dict[str, float]
RUN_ID = re.compile("[0-9a-f]{16}")
RunId: TypeAlias = Annotated[str, RUN_ID]
"""The name of a run's folder."""
SuiteName: TypeAlias = Annotated[str, re.compile("[A-Za-z0-9][A-Za-z0-9_.-]*")]
"""The name of a suite's folder."""


@dataclass(frozen=True)
class Size(Part):
    """The model as it was solved for, with what was counted on the trained one."""

    shared = True
    width: int
    depth: int
    params: int
    params_non_embedding: int
    state_bytes: int | None
    """Carried from step to step; None where nothing can be."""
    target: float | None = None
    mismatch: float | None = None
    """(reached − target) / target, of the trained model."""
    params_active: int | None = field(default=None, metadata=OPTIONAL)
    """Those of the backbone that one step goes through; None where it goes through all."""


SIZES = ("width", "depth", "params", "params_non_embedding", "params_active", "state_bytes")
"""What of a size is counted on a model."""


@dataclass(frozen=True)
class Budget(Part):
    """What a run might use, and what it used."""

    stop: StopRule | None
    reached: bool | None = field(default=None, metadata=OPTIONAL)
    """Whether a score reached the rule's target; None without one."""
    used: Meters = field(default_factory=Meters)
    flops_per_token: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Data(Part):
    """What a run was trained on."""

    shared = True
    fingerprint: str
    stream_hash: str = ""
    """Of every batch consumed, in order."""
    stream_marks: dict[str, str] = field(default_factory=dict)
    """The hash after 1, 2, 4, 8, … steps, so that runs of different lengths can be compared."""


@dataclass(frozen=True)
class Metrics(Part):
    """What a task is ranked by, and the scores by split."""

    primary: str
    also: tuple[str, ...] = ()
    higher_is_better: bool = True
    chance: float | None = None
    unit: str = ""
    valid: Scores = field(default_factory=dict)
    test: Scores = field(default_factory=dict)
    tune: Scores | None = field(default=None, metadata=OPTIONAL)
    """Of trials that are judged on this split."""

    @classmethod
    def of(cls, task: Task) -> Metrics:
        """What a task is ranked by, without scores."""
        metric = task.metric
        return cls(metric.name, tuple(task.also), metric.higher_is_better, metric.chance, metric.unit)

    def on(self, split: str) -> Scores:
        """The scores on a split; none where it was not scored."""
        return getattr(self, split) or {}

    def scored(self, split: str, scores: Scores) -> Metrics:
        """The same with the scores on a split."""
        return self.replace(**{split: scores})

    def score(self, split: str) -> float | None:
        """What the task is ranked by, on a split."""
        scores: Scores | None = getattr(self, split)
        return scores.get(self.primary) if scores else None


@dataclass(frozen=True)
class Override(Part):
    """A setting of an architecture's own, which no suite set."""

    shared = True
    what: str
    value: Any
    parameters: int
    """How many numbers it concerns."""
    names: tuple[str, ...] = ()
    """The parameters it concerns; empty for the whole model."""


@dataclass(frozen=True)
class CurvePoint(Part):
    """What was used and lost by one hundredth of the budget."""

    tokens: int
    steps: int
    flops: BigInt
    seconds: float
    loss: float | None
    valid: Scores | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class ReferenceSpeed(Part):
    """The speed of the reference model, timed in turn with the run."""

    architecture: str
    width: int
    depth: int
    heads: int
    problem: str | None = field(default=None, metadata=OPTIONAL)
    """Why it was not timed."""
    parameters: int | None = field(default=None, metadata=OPTIONAL)
    steps: int | None = field(default=None, metadata=OPTIONAL)
    step_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """The median of the timed steps."""
    drift: float | None = field(default=None, metadata=OPTIONAL)
    """Their 90th percentile over their 10th."""
    tokens_per_s: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Speed(Part):
    """How fast a run trained, and how fast the model then decodes or answers."""

    train_tokens_per_s: float | None = None
    reference: ReferenceSpeed | None = None
    relative: float | None = None
    """The run's speed over the reference's."""
    seconds_in_reference_steps: float | None = None
    decode_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """Of one token of one sequence, behind a context as long as the task's inputs."""
    decode_relative: float | None = field(default=None, metadata=OPTIONAL)
    """The reference's seconds of a token over the run's."""
    latency_seconds: float | None = field(default=None, metadata=OPTIONAL)
    """Of the answer to one example, alone."""
    latency_relative: float | None = field(default=None, metadata=OPTIONAL)
    """The reference's seconds of an answer over the run's."""


@dataclass(frozen=True)
class Memory(Part):
    """The most bytes of tensors alive at once in a training step."""

    peak_bytes: int | None = None
    before_bytes: int | None = None
    """Only in records whose peak was of resident memory: what the process held before."""


@dataclass(frozen=True)
class Gate(Part):
    """What one gate measured, against its limit."""

    shared = True
    passed: bool
    measured: float | None
    limit: float | None
    about: str = ""


@dataclass(frozen=True)
class Eligibility(Part):
    """Whether a run may be ranked, by the gates it passed."""

    shared = True
    ranked: bool = False
    gates: dict[str, Gate] = field(default_factory=dict)
    skipped: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    """Gates that the suite left out."""


@dataclass(frozen=True)
class Provenance(Part):
    """Where and with what a run was made."""

    shared = True
    zoobench: str | None = None
    commit: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    device: str | None = None
    system: str | None = None
    threads: int | None = None
    precision: str | None = None
    devices: int = field(default=1, metadata=OPTIONAL)
    """On which it was trained together, each in a process of its own; `threads` are those of one."""
    shard: bool = field(default=False, metadata=OPTIONAL)
    recompute: bool = field(default=False, metadata=OPTIONAL)
    kernels: dict[str, str] = field(default_factory=dict)
    """What computed each op of the training steps."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON of it, `{}` for a run that never started."""
        return {} if self == Provenance() else super().to_dict()


@dataclass(frozen=True)
class Segment(Part):
    """One stretch of training; more than one where a run was interrupted."""

    start: float
    from_step: int
    threads: int
    end: float | None = field(default=None, metadata=OPTIONAL)
    to_step: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Error(Part):
    """Why a run did not end well."""

    kind: str
    message: str
    where: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Origin(Part):
    """Who answers for a record; published records have it beside them."""

    shared = True
    kind: OriginKind = "made here"
    """`made here` by who publishes; by somebody else and `reviewed`, with some runs made again; or only `reported`."""
    contributor: str = ""
    """Who made it; empty for who publishes."""


@dataclass(frozen=True)
class External(Part):
    """Where published weights came from."""

    kind: str
    where: str
    weights: str
    """BLAKE2 of every tensor."""


@dataclass(frozen=True)
class AnswerMetric(Part):
    """One metric of a task of lm-evaluation-harness."""

    value: float | None
    stderr: float | None = None
    higher_is_better: bool = True
    chance: float | None = None


@dataclass(frozen=True)
class Answer(Part):
    """What a model answered to one task of lm-evaluation-harness."""

    version: Any
    hash: str
    samples: int
    fewshot: int | None
    group: str | None
    metrics: dict[str, AnswerMetric]


@dataclass(frozen=True)
class LmEval(Part):
    """Everything a model answered to lm-evaluation-harness."""

    package: str
    terms: dict[str, Any]
    names: tuple[str, ...]
    tasks: dict[str, Answer]
    groups: dict[str, Any]
    refused: dict[str, str]
    """Why a model could not answer, by task."""
    seconds: float


@dataclass(frozen=True)
class Record(Part):
    """What a run left."""

    schema: int
    run_id: RunId
    suite: SuiteName
    status: Status
    spec: RunSpec
    size: Size | None
    budget: Budget
    data: Data
    metrics: Metrics
    defaults: list[Override] | None = None
    curve: Sequence[CurvePoint] = field(default_factory=list)
    speed: Speed = field(default_factory=Speed)
    memory: Memory = field(default_factory=Memory)
    eligibility: Eligibility = field(default_factory=Eligibility)
    provenance: Provenance = field(default_factory=Provenance)
    segments: list[Segment] = field(default_factory=list)
    error: Error | None = None
    external: External | None = field(default=None, metadata=OPTIONAL)
    lm_eval: LmEval | None = field(default=None, metadata=OPTIONAL)
    origin: Origin = field(default=Origin(), metadata=OPTIONAL)
    digest: str = field(default="", metadata=OPTIONAL)
    """Of all else in it but `origin` (`harness.records.checks.digest_of`); older records have none."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """Read the JSON of a record, an older one as the current version writes it.

        Raises:
            Mismatch: it is of another version, a key is missing, or one holds what it cannot.
        """
        if isinstance(data, dict) and data.get("schema") != SCHEMA:
            raise Mismatch(f"record format {data.get('schema')!r}, this zoobench reads {SCHEMA}")
        record = super().from_dict(data)
        vars(record.spec)["fingerprint"] = record.data.fingerprint  # a new one, that nobody else has
        return record

    @cached_property
    def score(self) -> float | None:
        """The finite test score of a run that ended well; with a target, what it used to reach it, if it did."""
        if self.status != "ok":
            return None
        rule = self.spec.stop
        if rule is not None and rule.target is not None:
            return float(self.budget.used.of(rule.meter)) if self.budget.reached else None
        found = self.metrics.score("test")
        return found if found is not None and math.isfinite(found) else None

    def __getitem__(self, key: str) -> Any:
        """A key of the JSON, as scripts outside of the harness read records."""
        return self.to_dict()[key]

    def keys(self) -> Iterable[str]:
        """The keys of the JSON, so that `dict(record)` gives it."""
        return self.to_dict().keys()


def empty_record(spec: RunSpec, suite: str, metrics: Metrics, status: Status, error: Error | None = None) -> Record:
    """A record with nothing measured: what is known of a run before it starts."""
    return Record(
        schema=SCHEMA,
        run_id=spec.run_id,
        suite=suite,
        status=status,
        spec=spec,
        size=None,
        budget=Budget(spec.stop),
        data=Data(spec.fingerprint),
        metrics=metrics,
        error=error,
    )


def damaged(spec: RunSpec, run_id: str, suite: str, error: Exception) -> Record:
    """What stands for a record that cannot be read."""
    return empty_record(spec, suite, Metrics(""), "damaged", Error("Damaged", str(error))).replace(run_id=run_id)


def damaged_record(data: dict[str, Any], run_id: str, error: Exception) -> Record:
    """What stands for a record that cannot be read, with what was run.

    Raises:
        Mismatch: that cannot be read, either.
    """
    known = convert(_Ran, data)
    return damaged(RunSpec.from_dict(known.spec, str(known.data.get("fingerprint"))), run_id, known.suite, error)


@dataclass(frozen=True)
class _Ran(Part):
    """What of a damaged record says what was run."""

    suite: str
    spec: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)


def count_statuses(records: Iterable[Record]) -> dict[str, int]:
    """How many of these records have each status."""
    seen = [record.status for record in records]
    return {status: seen.count(status) for status in STATUSES}
