"""A RunSpec: one architecture, one task, one budget, one seed, one set of hyperparameters. A suite expands to many."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tasks
from harness import pretrained
from harness.suite import TUNABLE, Evaluate, Loaded, Question, Train
from tasks.base import Task
from zoo.types import Role

SCHEMA = 1
"""Version of the record format; part of every run id."""


class Cell(NamedTuple):
    """One architecture on one task in one track, by their labels."""

    architecture: str
    task: str
    track: str = ""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that decides what a run computes."""

    architecture: str
    architecture_label: str
    options: dict[str, Any]
    task: str
    task_label: str
    task_options: dict[str, Any]
    role: Role
    seed: int
    kind: Literal["final", "trial"]
    match: dict[str, Any] | None
    stop: dict[str, float]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    plugins: tuple[tuple[str, str], ...] = field(default=())
    """(name, digest of its content) of every plug-in of the suite."""
    track: str = ""
    """What is held equal, by the suite's name for it; empty in a suite that has no tracks."""
    tuning: dict[str, Any] | None = None
    """Of a trial that a sampler asked for: `sampler`, `space` and `trial`, its number. A grid's space is its points."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; what came later than the first records stands in it only where it is used."""
        data = json.loads(json.dumps(dataclasses.asdict(self)))
        return {name: value for name, value in data.items() if name not in ("track", "tuning") or value}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunSpec:
        return cls(**{**data, "plugins": tuple(map(tuple, data["plugins"]))})

    def run_id(self, fingerprint: str) -> str:
        """A hash of this spec and of the data it reads: equal for equal work, on any machine."""
        text = json.dumps([SCHEMA, self.to_dict(), fingerprint], sort_keys=True)
        return blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def external(self) -> bool:
        """Whether its weights were made elsewhere: it is scored, and neither sized, tuned, trained nor ranked."""
        return self.architecture == pretrained.NAME

    @property
    def cell(self) -> Cell:
        """What is sized, tuned and given a row once, whatever the seed."""
        return Cell(self.architecture_label, self.task_label, self.track)

    @property
    def point(self) -> dict[str, Any]:
        """The values of everything a suite may tune, where the spec has one."""
        return {n: getattr(self, place)[n] for n, place in TUNABLE.items() if n in getattr(self, place)}

    def at(self, point: dict[str, Any]) -> RunSpec:
        """The same run with the values of `point` instead of its own."""
        given = {place: {n: v for n, v in point.items() if TUNABLE[n] == place} for place in ("train", "options")}
        return self.replace(**{place: {**getattr(self, place), **values} for place, values in given.items()})

    def replace(self, **changes: Any) -> RunSpec:
        return dataclasses.replace(self, **changes)


def build_task(spec: RunSpec) -> Task:
    """The task of a run."""
    return tasks.build(spec.task, **spec.task_options)


def expand(loaded: Loaded) -> list[RunSpec]:
    """Every final run of a suite: task by task, track by track, seed by seed, with the suite's own hyperparameters.

    External rows stand once, under the first seed.
    """
    plugins = tuple((name, _digest(where)) for name, where in loaded.plugins)
    return [
        _spec(loaded, question, index, seed, plugins, track)
        for question in loaded.suite.tasks
        for track in loaded.suite.tracks or ("",)
        for seed in loaded.suite.seeds
        for index, choice in enumerate(loaded.suite.architectures)
        if question.plays(choice.label) and (not choice.external or seed == loaded.suite.seeds[0])
    ]


def _spec(
    loaded: Loaded, question: Question, index: int, seed: int, plugins: tuple[tuple[str, str], ...], name: str
) -> RunSpec:
    suite, choice, track = loaded.suite, loaded.suite.architectures[index], loaded.track(name)
    options = loaded.options(index, question, name)
    match = track.match if "match" in track.model_fields_set else question.match or suite.budget.match
    train = Train.model_validate({**suite.train.model_dump(), **question.train})
    stop = track.stop or question.stop or suite.budget.stop
    made = RunSpec(
        architecture=choice.name,
        architecture_label=choice.label,
        options=options,
        task=question.name,
        task_label=question.label,
        task_options=question.options,
        role=tasks.get(question.name).make.role,
        seed=seed,
        kind="final",
        match=None if match is None or "width" in options else match.terms(),
        stop=stop.terms(),
        train=train.model_dump(mode="json"),
        evaluate=_evaluated(suite.evaluate),
        plugins=plugins,
        track=name,
    )
    return made.replace(match=None, stop={}, train={}) if made.external else made


def _evaluated(evaluate: Evaluate) -> dict[str, Any]:
    """As in run ids: no key for gates where none is skipped."""
    found = evaluate.model_dump()
    return found if evaluate.skip_gates else {key: value for key, value in found.items() if key != "skip_gates"}


def _digest(where: str) -> str:
    found = None if where.endswith(".py") else importlib.util.find_spec(where)
    path = where if found is None else found.origin
    return blake2b(Path(path or where).read_bytes(), digest_size=8).hexdigest()
