"""The rows of a batch in parts, whose losses and gradients add up to those of the whole."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from zoo.types import Batch

if TYPE_CHECKING:
    from tasks.base import Task


class Part(NamedTuple):
    """Rows of a batch that go through a model together."""

    batch: Batch
    weight: float | None = None
    """The share of the batch's targets that it counts, by which its loss is weighed; None for a whole batch."""


def rows(batch: Batch, which: list[int] | slice) -> Batch:
    """Some examples of a batch."""
    return Batch(**{name: tensor[which] for name, tensor in batch.arrays().items()})


def split(batch: Batch, count: int) -> list[Part]:
    """A batch in `count` parts of as many rows as can be; the losses of all, weighed, add up to that of the batch."""
    if count == 1:
        return [Part(batch)]
    places = [len(batch) * place // count for place in range(count + 1)]
    parts = [rows(batch, slice(*ends)) for ends in pairwise(places)]
    counts = [part.targets.numel() if part.counted is None else int(part.counted.sum()) for part in parts]
    total = sum(counts)
    # the mean over no target is no number; that over all of them can be weighed by 0
    parts = [part if counted else replace(part, counted=None) for part, counted in zip(parts, counts, strict=True)]
    return [Part(part, n / total if total else math.nan) for part, n in zip(parts, counts, strict=True)]


def check_parts(task: Task, examples: int, count: int) -> None:
    """Check that batches of so many examples can be trained on in `count` parts.

    Raises:
        ValueError: there are fewer examples than parts, or the task's loss is no mean over the targets that count.
    """
    import torch

    if count == 1:
        return
    if examples < count:
        raise ValueError(f"a batch of {examples} examples cannot be split into {count} parts; raise batch_tokens")
    draw = torch.Generator().manual_seed(0)
    batch = task.batch("train", 0, size=4)
    if batch.counted is not None:  # of each row another number, so that a mean of the rows' means is told apart
        steps = torch.arange(batch.targets[0].numel()).view(batch.targets[0].shape)
        batch = replace(batch, counted=torch.stack([steps <= row * row for row in range(4)]))
    logits = torch.randn(*batch.targets.shape, task.shape.outputs, generator=draw)
    parts = split(batch, 2)
    values = [task.loss(part, own.batch) for part, own in zip(logits.split(2), parts, strict=True)]
    added = sum(float(value) * (own.weight or 0.0) for value, own in zip(values, parts, strict=True))
    if not math.isclose(added, float(task.loss(logits, batch)), rel_tol=1e-4):
        raise ValueError(
            f"the loss of {task.name} is no mean over the targets that count, so batches cannot be split: "
            "leave out accumulate and devices"
        )
