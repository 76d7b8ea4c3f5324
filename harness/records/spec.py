"""A RunSpec: one architecture, one task, one budget, one seed, one set of hyperparameters; and its id."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import tasks
from harness.records.meters import StopRule
from harness.records.parts import OPTIONAL, AnyInt, Mismatch, Part, read
from tasks.base import Split, Task
from zoo.types import Role, Schedule

Matched: TypeAlias = Literal["params", "flops_per_token", "state_bytes"]
MATCHED: tuple[Matched, ...] = get_args(Matched)
SCHEMA = 1
"""Version of the record format; part of every run id."""
PRETRAINED = "pretrained"
"""The architecture of rows whose weights were made elsewhere."""
TUNABLE = {"lr": "train", "weight_decay": "train", "warmup": "train", "dropout": "options"}
"""What a suite may tune, in the order in which a grid runs through it, and the field of a RunSpec that holds it."""


class Cell(NamedTuple):
    """One architecture on one task in one track, by their labels."""

    architecture: str
    task: str
    track: str = ""


@dataclass(frozen=True, slots=True)
class MatchRule:
    """What is held equal over the architectures, and how closely."""

    shared: ClassVar[bool] = True
    meter: Matched
    target: float
    tolerance: float
    count: Literal["total", "non_embedding", "active"] = "non_embedding"
    """Which parameters are counted: all, those of the backbone, or of these the ones that one step goes through."""
    solve: tuple[str, ...] = ("width", "depth")
    """What is varied to get there."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MatchRule:
        """Read `{meter: target, tolerance: …}`, with `count` and `solve` where they matter; a Mismatch of all else."""
        meter = next((name for name in MATCHED if name in data), None)
        if meter is None:
            raise Mismatch(f"expected one of {', '.join(MATCHED)}")
        rest = {name: value for name, value in data.items() if name != meter}
        return read(cls, {"meter": meter, "target": data[meter], **rest})

    def to_dict(self) -> dict[str, Any]:
        count = {"count": self.count} if self.meter == "params" else {}
        solve = {} if self.solve == ("width", "depth") else {"solve": list(self.solve)}
        return {self.meter: self.target, **count, "tolerance": self.tolerance, **solve}


@dataclass(frozen=True)
class TrainSettings(Part):
    """How a run is trained; the keys of a suite's `train`."""

    shared = True
    batch_tokens: int
    optimizer: str
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    schedule: Schedule
    warmup: float
    final_lr: float
    clip: float
    precision: str
    accumulate: int = field(default=1, metadata=OPTIONAL)
    """Parts in which a step's batch goes through the model one after the other."""


@dataclass(frozen=True)
class EvaluateSettings(Part):
    """How often and on how much a run is scored; the keys of a suite's `evaluate`."""

    shared = True
    every: float
    valid: int
    test: int | Literal["all"]
    skip_gates: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    split: Split | None = field(default=None, metadata=OPTIONAL)
    """Of a trial, the split that judges it."""

    def limit(self, split: Split) -> int | None:
        """How many examples of a split are scored; None for all."""
        limit = self.test if split == "test" else self.valid
        return None if limit == "all" else limit


@dataclass(frozen=True)
class Search(Part):
    """Where a sampled trial comes from."""

    sampler: str
    space: dict[str, Any]
    trial: int
    """Its number in its cell."""


@dataclass(frozen=True)
class RunSpec(Part):
    """Everything that decides what a run computes."""

    architecture: str
    architecture_label: str
    options: dict[str, Any]
    task: str
    task_label: str
    task_options: dict[str, Any]
    role: Role
    seed: AnyInt
    kind: Literal["final", "trial"]
    match: MatchRule | None
    stop: StopRule | None
    train: TrainSettings | None
    evaluate: EvaluateSettings
    plugins: tuple[tuple[str, str], ...] = ()
    """(name, digest of its content) of every plug-in of the suite."""
    track: str = field(default="", metadata=OPTIONAL)
    """What is held equal, by the suite's name for it; empty in a suite that has no tracks."""
    tuning: Search | None = field(default=None, metadata=OPTIONAL)
    """Of a sampled trial; those of a grid have none."""
    fingerprint: str = field(default="", kw_only=True)
    """Of the task's data: part of the id; in a record it stands under `data`."""

    @classmethod
    def from_dict(cls, data: dict[str, Any], fingerprint: str = "") -> RunSpec:
        """Read the JSON of a spec; that of published weights has `{}` for what only training needs."""
        untrained = {name: None for name in ("stop", "train") if data.get(name) == {}}
        return super().from_dict({**data, **untrained, "fingerprint": fingerprint})

    def to_dict(self) -> dict[str, Any]:
        """The JSON of a spec; what came later than the first records stands in it only where it is used."""
        written = super().to_dict()
        del written["fingerprint"]
        return written | {name: {} for name in ("stop", "train") if written[name] is None}

    @cached_property
    def run_id(self) -> str:
        """A hash of this spec and of the data it reads: equal for equal work, on any machine."""
        text = json.dumps([SCHEMA, self.to_dict(), self.fingerprint], sort_keys=True)
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def build_task(self) -> Task:
        """The task of this run, built anew."""
        return tasks.build(self.task, **self.task_options)

    @property
    def pretrained(self) -> bool:
        """Whether its weights were made elsewhere: it is scored, and neither sized, tuned, trained nor ranked."""
        return self.architecture == PRETRAINED

    @property
    def cell(self) -> Cell:
        """What is sized, tuned and given a row once, whatever the seed."""
        return Cell(self.architecture_label, self.task_label, self.track)

    @property
    def point(self) -> dict[str, Any]:
        """The values of everything a suite may tune, where the spec has one."""
        return {name: settings[name] for name in TUNABLE if name in (settings := self._settings_with(name))}

    def tuned(self, name: str) -> Any:
        """The value of something that a suite may tune; None where the spec has none."""
        return self._settings_with(name).get(name)

    def _settings_with(self, name: str) -> Mapping[str, Any]:
        return self.options if TUNABLE[name] == "options" else vars(self.train) if self.train else {}

    def at(self, point: Mapping[str, Any]) -> RunSpec:
        """The same run with the values of `point` instead of its own."""
        trained = {name: value for name, value in point.items() if TUNABLE[name] == "train"}
        options = {name: value for name, value in point.items() if TUNABLE[name] == "options"}
        train = None if self.train is None else self.train.replace(**trained)
        return self.replace(train=train, options={**self.options, **options})

    def title(self, tuned: Collection[str] = ()) -> str:
        """A run in words: `text · pre_ln · seed 0`; a trial by what is `tuned`, or its whole point."""
        name = " · ".join([*filter(None, (self.task_label, self.track, self.architecture_label)), ""])
        if self.kind == "final":
            return f"{name}seed {self.seed}"
        point = {what: value for what, value in self.point.items() if not tuned or what in tuned}
        return f"{name}trial " + ", ".join(f"{what} {value:g}" for what, value in point.items())
