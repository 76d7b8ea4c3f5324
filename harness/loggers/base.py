"""What a logger is, and what it is told of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.records.parts import plain
from harness.records.record import SIZES, Record, Status
from harness.records.spec import RunSpec

Scalar = str | int | float | bool


@dataclass(frozen=True)
class LoggedRun:
    """A run by the names that loggers know."""

    suite: str
    spec: RunSpec
    folder: Path
    """Where this logger's files of the suite go, unless its own environment variables say otherwise."""
    resumed: bool
    """Whether an earlier log of it goes on, or a new one takes its place."""

    @property
    def id(self) -> str:
        return self.spec.run_id

    @property
    def group(self) -> str:
        """What differs by the seed or the trial alone."""
        return " · ".join(filter(None, self.spec.cell))

    @property
    def name(self) -> str:
        """`pre_ln/text/seed-0`; a trial by its point: `pre_ln/text/lr=0.001,weight_decay=0.1,warmup=0.1`."""
        spec = self.spec
        point = ",".join(f"{what}={value:g}" for what, value in spec.point.items())
        parts = (*filter(None, spec.cell), f"seed-{spec.seed}" if spec.kind == "final" else point)
        return "/".join(re.sub(r"[^\w.,=()@+-]+", "_", part) for part in parts)

    @property
    def config(self) -> dict[str, Scalar]:
        """The hyperparameters: every key of the spec (`train.lr`), and the run's id."""
        return {"run_id": self.id, **dict(_flat(self.spec.to_dict()))}


class RunLog(Protocol):
    """One run in a logger."""

    last: int
    """The last training step that it holds; 0 where there is none."""

    @staticmethod
    def prepare(folder: Path, suite: str) -> str:
        """Check that logs can be written; how to look at them, in a line.

        Raises:
            UserError: they cannot.
        """

    def __init__(self, run: LoggedRun) -> None:
        """Open the log of a run: continue the earlier one if it is resumed, else begin anew."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point of the curves."""

    def finish(self, step: int, scores: Mapping[str, float], facts: Mapping[str, float], status: Status) -> None:
        """Leave what a run ended with, its scores and its size, speed and memory, and close the log."""

    def close(self) -> None:
        """Close the log of a run that was stopped, so that it can go on later."""


def point_values(point: Mapping[str, Any]) -> dict[str, float]:
    """A point of the curve by the names that loggers show; what was used can be the x-axis of the others."""
    used = _named("used", {name: point[name] for name in ("tokens", "flops", "seconds")})
    return {"train/loss": float(point["loss"]), **_named("valid", point.get("valid")), **used}


def final_scores(record: Record) -> dict[str, float]:
    """The scores a run ended with; those on `valid` unless they ended it and were logged with its last point."""
    scores = record.metrics
    valid = None if record.budget.reached else scores.valid
    return {**_named("valid", valid), **_named("tune", scores.tune), **_named("test", scores.test)}


def final_facts(record: Record) -> dict[str, float]:
    """The size, speed and memory of a run."""
    size = {} if record.size is None else {name: getattr(record.size, name) for name in SIZES}
    speed = {"train_tokens_per_s": record.speed.train_tokens_per_s, "relative": record.speed.relative}
    memory = {"peak_bytes": record.memory.peak_bytes}
    return {**_named("size", size), **_named("speed", speed), **_named("memory", memory)}


def _named(group: str, values: Mapping[str, float | None] | None) -> dict[str, float]:
    return {f"{group}/{name}": float(value) for name, value in (values or {}).items() if value is not None}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Scalar]]:
    """The leaves of nested mappings by dotted names; what no logger takes as it is, as text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif value is not None:
        yield name, value if isinstance(value, Scalar) else str(plain(value))
