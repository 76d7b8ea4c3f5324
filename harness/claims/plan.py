"""What was claimed and what decides on it: `plan.yaml`, written down before anything was measured."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter, model_validator

from harness.suite.strict import Strict
from harness.suite.yaml_source import read

Scale: TypeAlias = Literal["smoke", "small", "paper"]
Factor: TypeAlias = Literal["row", "task", "track"]
FACTORS: tuple[Factor, ...] = ("row", "task", "track")
SCALES: tuple[Scale, ...] = ("smoke", "small", "paper")
PLAN = Path(__file__).with_name("plan.yaml")


class Score(Strict):
    """The score of a row of the suite; of its only task and track, and by the metric it is ranked by, unless said.

    With `over: tasks` it is the mean over all tasks of the track, each of which weighs the same.
    """

    row: str
    task: str | None = None
    track: str | None = None
    metric: str | None = None
    over: Literal["tasks"] | None = None

    @model_validator(mode="after")
    def _one_task_or_all(self) -> Score:
        if self.over and self.task:
            raise ValueError("give a task, or over: tasks")
        return self

    def __str__(self) -> str:
        over = f"mean over {self.over}" if self.over else None
        return " · ".join(filter(None, (self.row, self.task, self.track, self.metric, over)))


class Share(Strict):
    """The part of the variance of mean scores over a suite's rows, tasks and tracks that one of the three explains.

    It is η² of an analysis of variance of balanced cells: the sum of squares of that factor by the total one.
    """

    share: Factor

    def __str__(self) -> str:
        return f"share of the variance by {self.share}"


class Margin(Strict):
    """How far the score of a row is ahead of the best that costs no more: above 0 it is on the Pareto front.

    Others are all rows in all tracks of the task, and chance, which costs nothing. `by: size` is what a track matches
    all its rows to; `by: latency` is the mean time of an answer to one example.
    """

    margin: str
    """The row."""
    by: Literal["size", "latency"]
    track: str
    task: str | None = None

    def __str__(self) -> str:
        where = " · ".join(filter(None, (self.margin, self.task, self.track)))
        return f"{where} over the best of no more {self.by}"


Quantity: TypeAlias = str | Score | Share | Margin
"""What an experiment measures under a name, a score, a share of the variance of scores, or the margin of one."""


class Contrast(Strict):
    """A quantity, or the difference of two, and where the interval of its mean must lie."""

    says: str
    of: Quantity
    minus: Quantity | None = None
    above: float | None = None
    below: float | None = None
    within: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one(self) -> Contrast:
        if sum(bound is not None for bound in (self.above, self.below, self.within)) != 1:
            raise ValueError("give exactly one of above, below, within")
        return self

    @property
    def quantities(self) -> list[Quantity]:
        """What it is about: one or two."""
        return [self.of] if self.minus is None else [self.of, self.minus]

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which it holds."""
        if self.within is not None:
            return self.within
        return (-math.inf if self.above is None else self.above, math.inf if self.below is None else self.below)


class Claim(Strict):
    """A sentence, the suite or the experiment that it is tried by, and the contrasts that decide on it."""

    says: str
    suite: str | None = None
    experiment: str | None = None
    seeds: dict[Scale, int] = {}
    """How often an experiment is made; a suite has its own."""
    contrasts: list[Contrast]

    @model_validator(mode="after")
    def _one(self) -> Claim:
        if (self.suite is None) == (self.experiment is None):
            raise ValueError("give a suite or an experiment")
        if {*self.seeds} != ({*SCALES} if self.experiment else set()):
            raise ValueError(f"give seeds of an experiment for {', '.join(SCALES)}, and of no suite")
        return self


@cache
def claims() -> dict[str, Claim]:
    """Every claim by its id, in the order in which they are shown."""
    data: Any = read(PLAN).data
    return TypeAdapter(dict[str, Claim]).validate_python(data)
