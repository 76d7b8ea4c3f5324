"""What is judged: a trained model, where it comes from, and what was seen of its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.gates.float64 import Float64Copy
from harness.records.meters import Meters, StopRule
from harness.records.record import Gate, Size
from harness.records.spec import MatchRule
from tasks.base import Task
from zoo.contract import Batch, Model

if TYPE_CHECKING:
    from harness.gates.watch import Watch

AS_SCORED = 1e-4
"""Relative, in the model's own precision: products of other sizes, and transforms over time, round in other ways."""


@dataclass
class Subject:
    """A trained model and what is known of it."""

    model: Model
    task: Task
    size: Size
    match: MatchRule | None
    build: Callable[[int], Model]
    """The model as initialised, by seed, on the device of `model`."""
    score: Callable[[Model, Any], object]
    """The scoring the record was made by, of some test examples of a task."""
    loss: Callable[[Tensor, Batch], Tensor]
    """What training minimised."""
    build_task: Callable[[], Task]
    watch: Watch
    seed: int
    stop: StopRule
    used: Meters
    step: Meters
    """What one step costs by the first one's count."""
    examples: int
    """In a batch of training."""
    results: dict[str, Gate] = field(default_factory=dict)
    """Of the gates checked so far."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def mismatch(self) -> float | None:
        """How far the size is from the one that all are matched to; None where nothing is matched."""
        return None if self.match is None else self.size.mismatch

    @property
    def scored(self) -> list[tuple[Batch, Tensor]]:
        """Batches that the scores of the record were made of, with their logits of that time."""
        return self.watch.first

    @cached_property
    def float64(self) -> Float64Copy:
        """A copy of the model in float64."""
        with torch.no_grad():
            return Float64Copy.of(self.model, self.batch(2))

    def built(self, seed: int) -> Model:
        """The model as it was before training, in evaluation mode."""
        return self.build(seed).eval()

    def batch(self, size: int = 8) -> Batch:
        """The first test examples, on the CPU."""
        return next(iter(self.task.evaluation("test", size=size, limit=size))).tensors()


def joined(batches: Sequence[Batch]) -> Batch:
    """The examples of all batches as one."""
    fields = [batch.arrays() for batch in batches]
    return Batch(**{name: torch.cat([arrays[name] for arrays in fields]) for name in fields[0]})
