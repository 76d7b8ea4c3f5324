"""The four meters of a run, and the rule that ends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from harness.records.parts import BigInt, Mismatch, read

Meter: TypeAlias = Literal["tokens", "steps", "flops", "seconds"]
METERS: tuple[Meter, ...] = get_args(Meter)
LOG_POINTS = 100
"""Parts of its budget after each of which a run adds a point to its curve."""


@dataclass(slots=True)
class Meters:
    """What a run has used. Seconds are those inside training steps: evaluation, data and logging are off the clock."""

    tokens: int = 0
    steps: int = 0
    flops: BigInt = 0
    seconds: float = 0.0

    def of(self, meter: Meter) -> float:
        """What one meter shows."""
        shown: float = getattr(self, meter)
        return shown


@dataclass(frozen=True, slots=True)
class StopRule:
    """A limit on one meter. A run stays within tokens, steps and FLOPs; seconds end with the step they fall in."""

    shared: ClassVar[bool] = True
    meter: Meter
    limit: float
    target: float | None = None
    """A score on `valid` that ends the run before its limit."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StopRule:
        """Read `{meter: limit}`, perhaps with `target`; a Mismatch where it is something else."""
        meter = next((name for name in METERS if name in data), None)
        if meter is None:
            raise Mismatch(f"expected one of {', '.join(METERS)}")
        return read(cls, {"meter": meter, "limit": data[meter], "target": data.get("target")})

    def to_dict(self) -> dict[str, float]:
        return {self.meter: self.limit} | ({} if self.target is None else {"target": self.target})

    def progress(self, used: Meters) -> float:
        """From 0 at the start to 1 at the limit."""
        return min(1.0, used.of(self.meter) / self.limit)

    def done(self, used: Meters, step: Meters) -> bool:
        """Whether one more step, costing `step`, would go over the limit."""
        if self.meter == "seconds":
            return used.seconds >= self.limit
        return used.steps > 0 and used.of(self.meter) + step.of(self.meter) > self.limit

    def reached(self, score: float | None, *, higher_is_better: bool) -> bool:
        """Whether a score is as good as the target; never without one."""
        if self.target is None or score is None:
            return False
        return score >= self.target if higher_is_better else score <= self.target


def crossed(before: float, after: float, every: float) -> bool:
    """Whether a multiple of `every` lies between."""
    return every > 0 and int(before / every + 1e-9) < int(after / every + 1e-9)
