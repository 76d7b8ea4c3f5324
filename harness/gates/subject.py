"""What is judged: a trained model, where it comes from, and what was seen of its training."""

from __future__ import annotations

from collections.abc import Callable
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
    """A trained model and what is known of it. Gates for which something is missing are left out."""

    model: Model
    task: Task
    size: Size | None = None
    match: MatchRule | None = None
    build: Callable[[int], Model] | None = None
    """The model as initialised, by seed, on the device of `model`."""
    score: Callable[[Model, Any], object] | None = None
    """The scoring the record was made by, of some test examples of a task."""
    loss: Callable[[Tensor, Batch], Tensor] | None = None
    """What training minimised."""
    again: Callable[[], Task] | None = None
    """The task, built anew."""
    watch: Watch | None = None
    seed: int = 0
    stop: StopRule | None = None
    used: Meters = field(default_factory=Meters)
    step: Meters = field(default_factory=Meters)
    """What one step costs by the first one's count."""
    examples: int = 8
    """In a batch of training."""
    results: dict[str, Gate] = field(default_factory=dict)
    """Of the gates checked so far."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def mismatch(self) -> float | None:
        """How far the size is from the one that all are matched to; None where nothing is matched."""
        return self.size.mismatch if self.size is not None and self.match is not None else None

    @property
    def seen(self) -> Watch:
        """What was seen of the training."""
        assert self.watch is not None
        return self.watch

    @property
    def scored(self) -> list[tuple[Batch, Tensor]]:
        """Batches that the scores of the record were made of, with their logits of that time."""
        return [] if self.watch is None else self.watch.first

    @cached_property
    def float64(self) -> Float64Copy:
        """A copy of the model in float64."""
        with torch.no_grad():
            return Float64Copy.of(self.model, self.batch(2))

    def built(self, seed: int) -> Model:
        """The model as it was before training, in evaluation mode."""
        assert self.build is not None
        return self.build(seed).eval()

    def batch(self, size: int = 8) -> Batch:
        """The first test examples, on the CPU."""
        return next(iter(self.task.evaluation("test", size=size, limit=size))).tensors()


def rows(batch: Batch, which: list[int] | slice) -> Batch:
    """Some examples of a batch."""
    return Batch(**{name: tensor[which] for name, tensor in batch.arrays().items()})
