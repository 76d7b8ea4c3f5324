"""The four meters, the rule that ends a run, and the learning rate as a function of how far it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Meters:
    """What a run has used. Seconds are those inside training steps: evaluation, data and logging are off the clock."""

    tokens: int = 0
    steps: int = 0
    flops: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StopRule:
    """A limit on one meter. A run stays within tokens, steps and FLOPs; seconds end with the step they fall in."""

    meter: str
    limit: float
    target: float | None = None
    """A score on `valid` that ends the run before its limit."""

    @classmethod
    def of(cls, stop: Mapping[str, float]) -> StopRule:
        """The rule that `RunSpec.stop` spells: one meter with its limit, and perhaps a target."""
        ((meter, limit),) = ((name, value) for name, value in stop.items() if name != "target")
        return cls(meter, limit, stop.get("target"))

    def progress(self, used: Meters) -> float:
        """From 0 at the start to 1 at the limit."""
        return min(1.0, getattr(used, self.meter) / self.limit)

    def done(self, used: Meters, step: Meters) -> bool:
        """Whether one more step, costing `step`, would go over the limit."""
        if self.meter == "seconds":
            return used.seconds >= self.limit
        return used.steps > 0 and getattr(used, self.meter) + getattr(step, self.meter) > self.limit

    def reached(self, score: float | None, *, higher_is_better: bool) -> bool:
        """Whether a score is as good as the target; never without one."""
        if self.target is None or score is None:
            return False
        return score >= self.target if higher_is_better else score <= self.target


def schedule(kind: str, progress: float, *, warmup: float, final: float) -> float:
    """The learning rate over its peak: linear warm-up, then `cosine` or `linear` down to `final`, or `constant`.

    `inverse_sqrt` falls as √(warm-up / steps) after the warm-up (Vaswani et al. 2017, section 5.3), wherever that ends.
    """
    if warmup and progress < warmup:
        return progress / warmup
    if kind == "constant":
        return 1.0
    if kind == "inverse_sqrt":
        return math.sqrt(max(warmup, 1e-3) / max(progress, 1e-3)) if progress > warmup else 1.0
    left = 1.0 - (progress - warmup) / max(1e-12, 1.0 - warmup)
    shape = left if kind == "linear" else 0.5 * (1.0 - math.cos(math.pi * left))
    return final + (1.0 - final) * shape
