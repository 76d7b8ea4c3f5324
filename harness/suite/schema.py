"""The keys of a suite: what they are called, what may stand in them, and what they are by default."""

from __future__ import annotations

import math
import re
import reprlib
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from harness.isolation.supervisor import Bounds
from harness.records.checks import GATES
from harness.records.meters import METERS, StopRule
from harness.records.seeds import SeedRule
from harness.records.spec import MATCHED, PRETRAINED, TUNABLE, EvaluateSettings, MatchRule, TrainSettings
from harness.suite.seeds import Seeds, SeedsOrRule
from harness.suite.strict import Strict
from harness.units import Count, Duration, Fraction, Number, Quantity, human
from zoo.registry import nearest
from zoo.types import Schedule

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


def _shown(name: str) -> str:
    if not name or not name.isprintable() or len(name) > 1000:
        raise ValueError(
            f"a name has from 1 to 1000 characters, none of which controls a terminal; got {reprlib.repr(name)}"
        )
    return name


Name = Annotated[str, AfterValidator(_shown)]
"""What is shown wherever the suite is."""


class Match(Strict):
    """What is held equal over the architectures: exactly one of params, flops_per_token, state_bytes."""

    params: Count | None = None
    count: Literal["total", "non_embedding", "active"] = "non_embedding"
    """Which parameters: all, those of the backbone, or of these the ones that one step goes through."""
    flops_per_token: Quantity | None = None
    """Counted on one real training step, forward and backward, over the tokens of its batch."""
    state_bytes: Count | None = None
    """Carried from one decoding step to the next after one sequence of the task's length."""
    tolerance: Fraction = 0.05
    solve: Annotated[list[Literal["width", "depth"]], Field(min_length=1)] = ["width", "depth"]
    """What is varied to get there; depth only where no width comes within the tolerance."""

    @model_validator(mode="after")
    def _one(self) -> Match:
        if sum(getattr(self, name) is not None for name in MATCHED) != 1:
            raise ValueError(f"give exactly one of {', '.join(MATCHED)}")
        if self.params is None and "count" in self.model_fields_set:
            raise ValueError("count goes with params only")
        if "width" not in self.solve:
            raise ValueError("solve needs width: depth alone is too coarse to match anything")
        return self

    def rule(self) -> MatchRule:
        """The rule as a RunSpec holds it."""
        meter = next(name for name in MATCHED if getattr(self, name) is not None)
        return MatchRule(meter, getattr(self, meter), self.tolerance, self.count, tuple(self.solve))


OptionalMatch = Annotated[Match | None, BeforeValidator(lambda value: None if value == "none" else value)]
"""`match: none` is no match."""


class Stop(Strict):
    """When a run ends: at a limit on exactly one meter, or before it, when the score on `valid` reaches a target."""

    tokens: Count | None = None
    steps: Count | None = None
    flops: Quantity | None = None
    seconds: Duration | None = None
    target: Number | None = None
    """A value of the task's metric; rows are then ranked by what they used of the meter to reach it."""

    @model_validator(mode="after")
    def _one(self) -> Stop:
        if sum(getattr(self, name) is not None for name in METERS) != 1:
            raise ValueError(f"give exactly one of {', '.join(METERS)}" + " beside target" * bool(self.target))
        return self

    def rule(self) -> StopRule:
        """The rule as a RunSpec holds it."""
        meter = next(name for name in METERS if getattr(self, name) is not None)
        return StopRule(meter, getattr(self, meter), self.target)


class Budget(Strict):
    """What is held equal and when runs end; what is not given, a task's difficulty decides."""

    match: OptionalMatch = None
    stop: Stop = Stop(tokens=1_000_000)


class Track(Strict):
    """One way to hold architectures equal: a budget by which every task is played once more, and ranked apart."""

    about: str = ""
    match: OptionalMatch = None
    stop: Stop | None = None
    model: dict[str, Any] = {}
    """Options for every architecture that has them, over the suite's and the task's: `width`, if nothing is matched."""
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    """The tasks that are played in it, by label; None for all."""


class Scaling(Strict):
    """A ladder of sizes that grow together with their tokens: a track for each, called by its parameters."""

    params: Annotated[list[Count], Field(min_length=2)]
    tokens_per_param: Number = 20.0
    tolerance: Fraction = 0.05

    def tracks(self) -> dict[str, Track]:
        """The tracks, as if they had been written one by one."""
        made = {}
        for params in self.params:
            match = Match(params=params, tolerance=self.tolerance)
            stop = Stop(tokens=round(self.tokens_per_param * params))
            made[human(params)] = Track(match=match, stop=stop)
        if len(made) < len(self.params):
            raise ValueError("params repeat")
        return made


class Train(Strict):
    """How every run of the suite is trained."""

    batch_tokens: Count = 1024
    optimizer: Literal["adamw"] = "adamw"
    lr: Number = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    weight_decay: Number = 0.1
    schedule: Schedule = "cosine"
    warmup: Fraction = 0.05
    final_lr: Fraction = 0.1
    """Where the schedule ends, as a fraction of the peak."""
    clip: Number = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    accumulate: Count = 1
    """Parts in which a step's batch goes through the model one after the other, to take less memory."""

    def over(self, base: Train) -> Train:
        """The keys given here, on top of another's."""
        return base.model_copy(update=self.model_dump(exclude_unset=True))

    def settings(self) -> TrainSettings:
        """The settings as a RunSpec holds them."""
        return TrainSettings(**dict(self))


class Evaluate(Strict):
    """How often and on how much every run is scored."""

    every: Fraction = 0.1
    """How often `valid` is scored, as a fraction of the budget."""
    valid: Count = 256
    """Examples of `valid` scored along the way and at the end."""
    test: Count | Literal["all"] = "all"
    """Examples of `test` scored once, at the end."""
    skip_gates: list[str] = []
    """Gates that are left out, by name; a board says so."""

    @field_validator("skip_gates")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in GATES:
                raise ValueError(f"no gate is called {name!r}{nearest(name, GATES)}")
        return sorted({*names})

    def settings(self) -> EvaluateSettings:
        """The settings as a RunSpec holds them."""
        return EvaluateSettings(self.every, self.valid, self.test, tuple(self.skip_gates))


class Range(Strict):
    """Bounds between which a sampler draws a value: uniformly, or with `log` uniformly in the logarithm."""

    low: Number
    high: Number
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must lie below high ({self.high:g})")
        if self.log and self.low == 0:
            raise ValueError("a logarithmic range cannot start at 0; raise low, or leave out log")
        return self


class Share(Range):
    """A range of fractions: `{low: 0, high: 30%}`."""

    low: Fraction
    high: Fraction


def _list_or_range(value: Any) -> str | None:
    """Which of the two a value is meant to be, in brackets, which keep it out of the paths of errors."""
    return "[range]" if isinstance(value, (dict, Range)) else "[list]" if isinstance(value, list) else None


_FORM = Discriminator(
    _list_or_range,
    custom_error_type="values",
    custom_error_message="expected a list of values, or a range such as {low: 1e-4, high: 1e-2, log: true}",
)
_LISTED = Field(min_length=1)
Numbers = Annotated[Annotated[list[Number], _LISTED, Tag("[list]")] | Annotated[Range, Tag("[range]")], _FORM]
Shares = Annotated[Annotated[list[Fraction], _LISTED, Tag("[list]")] | Annotated[Share, Tag("[range]")], _FORM]


class Tuning(Strict):
    """The same trials for every architecture and task, chosen on one split by the task's metric.

    Without `sampler` every combination of the lists is tried; with it, `trials` points of lists and ranges.
    """

    sampler: Literal["tpe", "random", "qmc"] | None = None
    trials: Count | None = None
    lr: Numbers | None = None
    weight_decay: Numbers | None = None
    warmup: Shares | None = None
    dropout: Shares | None = None
    select: Literal["valid", "tune"] = "valid"
    budget: Annotated[Fraction, Field(gt=0)] = 1.0
    """Length of a trial as a fraction of a run's."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1000
    """The seed of the trials and of the sampler, which no run of the board may share."""

    @property
    def space(self) -> dict[str, list[float] | Range]:
        """What is tuned, in the order of `TUNABLE`."""
        return {name: values for name in TUNABLE if (values := getattr(self, name)) is not None}

    @property
    def effort(self) -> int:
        """Trials of each architecture on each task."""
        if self.trials is not None:
            return self.trials
        return math.prod(len(values) for values in self.space.values() if isinstance(values, list))


class LmEval(Strict):
    """What lm-evaluation-harness asks every language model of the suite once it is trained; it changes no run."""

    tasks: Annotated[list[str], Field(min_length=1)]
    """Its tasks and groups by name, those of zoobench (`zoobench ls questions`) and of `include` among them."""
    limit: Count | None = None
    """Documents of each task, the first ones; all of them by default."""
    fewshot: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each question; by default what a task says."""
    max_length: Count | None = None
    """Tokens a model is given at most; by default the length it was trained on."""
    include: str | None = None
    """A folder of YAML tasks, relative to the suite."""
    data: str | None = None
    """A folder of files that zoobench's `local_*` tasks read, relative to the suite; by default $ZOOBENCH_QUESTIONS."""

    @model_validator(mode="before")
    @classmethod
    def _names_only(cls, data: Any) -> Any:
        return {"tasks": data} if isinstance(data, list) else data

    def terms(self) -> dict[str, Any]:
        """What decides on an answer beside the task."""
        return {"limit": self.limit, "fewshot": self.fewshot, "max_length": self.max_length}


class Limits(Strict):
    """When a run is stopped for good, and how often it is saved."""

    timeout: Duration | None = None
    """Seconds of wall time after which a run is stopped and recorded as `timeout`."""
    stall: Duration = 300.0
    """Seconds without progress after which it is, unless it has needed a fifth of that for a step before."""
    memory: Count | None = None
    """Bytes that all processes of a run may use, before it is `oom`: the machine's by the runs at a time by default."""
    output: Count = 1_000_000
    """Bytes of what a run prints that are kept, in `output.txt` of its folder."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a run goes on after something else than its model has ended it: killed from outside, a full disk."""
    checkpoint: Duration = 20.0
    """Seconds between the checkpoints of a run."""
    devices: Count = 1
    """GPUs, or else processes, on which each run is trained: every one computes on its rows of each batch."""
    shard: bool = False
    """Whether each device holds a part of weights, gradients and moments only."""
    recompute: bool = False
    """Whether blocks are computed again in the backward pass: a third more time, and much less memory."""
    runs: Count = 20_000
    """The most runs and trials that the suite may make: beyond, it is refused."""

    @model_validator(mode="after")
    def _shards(self) -> Limits:
        if self.shard and self.devices == 1:
            raise ValueError("shard needs devices: 2 or more, over which a model is divided")
        return self

    @property
    def bounds(self) -> Bounds:
        """What each run may use."""
        return Bounds(self.timeout, self.stall, self.memory, self.output)


class ArchitectureEntry(Strict):
    """One architecture in the suite: its registered name, options, and the name of its row."""

    name: str
    options: dict[str, Any] = {}
    label: Name

    @property
    def pretrained(self) -> bool:
        """Whether its weights were made elsewhere."""
        return self.name == PRETRAINED


class TaskEntry(Strict):
    """One task in the suite, with what it overrides for itself."""

    name: str
    options: dict[str, Any] = {}
    label: Name
    stop: Stop | None = None
    match: Match | None = None
    train: Train = Train()
    model: dict[str, Any] = {}
    only: Annotated[list[str], Field(min_length=1)] | None = None
    """The rows that play this task, by label; None for all. A row left out of every task is refused."""

    def plays(self, label: str) -> bool:
        """Whether the row called `label` plays this task."""
        return self.only is None or label in self.only


class Suite(Strict):
    """A benchmark: architectures × tasks × seeds under one budget."""

    suite: Annotated[str, Field(pattern=NAME, max_length=100)]
    about: str = ""
    extends: str | None = None
    difficulty: str | None = None
    """Which of the tasks' difficulties (`smoke`, `small`, `paper`) fills in what the suite leaves open."""
    difficulties: dict[str, dict[str, Any]] = {}
    """By difficulty, keys that go on top of the suite's own when it is chosen."""
    plugins: list[Name] = []
    architectures: Annotated[list[ArchitectureEntry], Field(min_length=1)]
    tasks: Annotated[list[TaskEntry], Field(min_length=1)]
    budget: Budget = Budget()
    tracks: dict[str, Track] = {}
    """By name; without any, every task is played once, under `budget`."""
    scaling: Scaling | None = None
    """In place of `tracks`: sizes that grow together with their tokens."""
    tuning: Tuning | None = None
    seeds: SeedsOrRule = [0, 1, 2]
    """The same for every row, or a rule that adds them."""
    train: Train = Train()
    model: dict[str, Any] = {}
    """Options for every architecture that has them: `depth`, `dropout`, `heads`, …"""
    evaluate: Evaluate = Evaluate()
    limits: Limits = Limits()
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """Where runs compute, unless `--device` says; it changes no run's id."""
    lm_eval: LmEval | None = None
    weights: Literal["keep", "drop"] = "keep"
    """Whether final runs leave their trained weights beside the record, for `eval`, `generate` and `export`."""
    reference: str | None = None
    """The row, by label, that normalised scores and times to target are measured by; it changes no run."""
    targets: dict[str, Number] = {}
    """Scores on `valid` to be reached, by task label; it changes no run."""

    @model_validator(mode="after")
    def _ladder(self) -> Suite:
        if self.scaling is not None:
            made = self.scaling.tracks()
            if self.tracks and self.tracks != made:
                raise ValueError("give tracks or scaling, not both")
            object.__setattr__(self, "tracks", made)  # what is made of a key is no change of what was read
        return self

    @field_validator("tracks")
    @classmethod
    def _named(cls, tracks: dict[str, Track]) -> dict[str, Track]:
        for name in tracks:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"a track's name has letters, digits, '.', '_' and '-'; got {name!r}")
        return tracks

    def tracks_of(self, task: TaskEntry) -> tuple[str, ...]:
        """The names of the tracks that a task is played in; one without a name where the suite has none."""
        played = (name for name, track in self.tracks.items() if track.tasks is None or task.label in track.tasks)
        return tuple(played) if self.tracks else ("",)

    @property
    def seed_rule(self) -> SeedRule | None:
        """The rule that adds seeds; None where they are fixed."""
        return self.seeds.rule() if isinstance(self.seeds, Seeds) else None

    @property
    def first_seeds(self) -> list[int]:
        """The seeds that every row gets."""
        return [*range(self.seeds.start)] if isinstance(self.seeds, Seeds) else self.seeds

    @property
    def all_seeds(self) -> list[int]:
        """The seeds that a row may get."""
        return [*range(self.seeds.most)] if isinstance(self.seeds, Seeds) else self.seeds
