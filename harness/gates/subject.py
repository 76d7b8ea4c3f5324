"""What is judged: a trained model, where it comes from, and what was seen of its training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.gates.float64 import Float64Copy
from harness.gates.question import asked
from harness.records.meters import Meters, StopRule
from harness.records.record import Gate, Size
from harness.records.spec import MatchRule
from tasks.base import Split, Task
from tasks.parts import rows
from zoo.contract import Batch, Model

if TYPE_CHECKING:
    from harness.gates.watch import Watch

MOST = 16
"""Test examples that gates look at more closely than at all others."""
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
    groups: Callable[[], list[dict[str, Any]]]
    """What the optimizer would be told of the parameters now, by group."""
    limit: int | None = None
    """Test examples that the record was scored on; None for all."""
    results: dict[str, Gate] = field(default_factory=dict)
    """Of the gates checked so far."""
    draw: random.SystemRandom = field(default_factory=random.SystemRandom)
    """Decides what is looked at, so that no model can foresee it."""

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
        return self.watch.scored

    @cached_property
    def float64(self) -> Float64Copy:
        """A copy of the model in float64."""
        with torch.no_grad():
            return Float64Copy.of(self.model, self.batch(2))

    def built(self, seed: int) -> Model:
        """The model as it was before training, in evaluation mode."""
        return self.build(seed).eval()

    def answer(self, batch: Batch) -> Tensor:
        """The model's logits."""
        logits: Tensor = self.model(asked(batch))
        return logits

    def batch(self, size: int = 8) -> Batch:
        """The first of `MOST` drawn test examples, on the CPU."""
        return rows(self._drawn, slice(0, size))

    @cached_property
    def _drawn(self) -> Batch:
        """Of one length, where the task asks for several."""
        multiple, task = self.draw.choice([*self._lengths.items()])
        ids = task.evaluation_ids("test", self._asked(multiple))
        places = self.draw.sample(range(len(ids)), min(MOST, len(ids)))
        return task.examples("test", ids[places], 0).tensors()

    @property
    def _lengths(self) -> dict[int, Task]:
        """The task at each multiple of its length that is scored."""
        return getattr(self.task, "at", {1: self.task})

    def _asked(self, multiple: int) -> int | None:
        """How many test examples the record was scored on at a multiple of the task's length; None for all."""
        return None if self.limit is None else max(1, self.limit // multiple)

    def drawn(self, split: Split, *, size: int, limit: int) -> Iterator[Batch]:
        """At most so many drawn examples of a split, in batches; fewer where they are longer."""
        for multiple, task in self._lengths.items():
            unasked = limit if task.count(split) is None else None
            ids = task.evaluation_ids(split, self._asked(multiple) if split == "test" else unasked)
            places = sorted(self.draw.sample(range(len(ids)), min(len(ids), max(1, limit // multiple))))
            for start in range(0, len(places), size):
                yield task.examples(split, ids[places[start : start + size]], 0).tensors()

    def generator(self) -> torch.Generator:
        """Random numbers for one gate."""
        return torch.Generator().manual_seed(self.draw.getrandbits(63))


def joined(batches: Sequence[Batch]) -> Batch:
    """The examples of all batches as one."""
    fields = [batch.arrays() for batch in batches]
    return Batch(**{name: torch.cat([arrays[name] for arrays in fields]) for name in fields[0]})
