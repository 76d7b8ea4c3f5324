"""Length extrapolation, as an option of every task: trained at its own length, scored at multiples of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tasks.base import Baseline, Ids, Split, Task, Totals
from zoo.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


class Extrapolated(Task):
    """`task`, with `valid` and `test` (and `tune`) scored at every multiple m of its length.

    Scores at m = 1 keep their names, others are called `accuracy@4x`, say; rows are ranked by the longest. At m there
    are 1/m as many examples, so that each length is scored on as many steps. Models are built for the longest inputs.

    Raises:
        ValueError: `multiples` are not whole numbers above 1, or the task cannot be longer than it is.
    """

    def __init__(self, task: Task, multiples: Sequence[int]) -> None:
        wrong = not isinstance(multiples, (list, tuple)) or not multiples
        if wrong or any(not isinstance(m, int) or isinstance(m, bool) or m < 1 for m in multiples):
            raise ValueError(
                f"{task.name}: extrapolate must be a list of whole numbers such as [2, 4], got {multiples!r}"
            )
        self.task, self.name, self.role = task, task.name, task.role  # type: ignore[misc]
        self.options = {**task.options, "extrapolate": list(multiples)}
        self.at = {m: task if m == 1 else task.stretched(m) for m in sorted({1, *multiples})}
        self.longest = max(self.at)
        self._multiple = {part.shape.length: m for m, part in self.at.items()}
        self.metric = dataclasses.replace(self.at[self.longest].metric, name=task.metric.name + _suffix(self.longest))
        self.also = tuple(task.metric.name + _suffix(m) for m in self.at if m != self.longest)
        self.shape, self.decoding = self.at[self.longest].shape, self.at[self.longest].decoding
        self.train_length = task.train_length
        self.fingerprint = f"{task.fingerprint} extrapolate={','.join(map(str, self.at))}"

    def count(self, split: Split) -> int | None:
        return self.task.count(split)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        return self.task.examples(split, ids, seed)

    def stretched(self, multiple: int) -> Task:
        return self.task.stretched(multiple)

    def evaluation(self, split: Split, *, size: int = 32, limit: int | None = None) -> Iterator[Batch]:
        """The examples at one length after another, the shortest first."""
        for m, part in self.at.items():
            yield from part.evaluation(split, size=max(1, size // m), limit=_fewer(limit, m))

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Those of the longest inputs."""
        return self.at[self.longest].baselines(_fewer(limit, self.longest))

    def loss(self, logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        return self.task.loss(logits, batch, label_smoothing)

    def totals(self, logits: Tensor, batch: Batch) -> Totals:
        """The task's at this length, under names that tell it."""
        m = self._multiple[batch.inputs.shape[1]]
        return _named(self.at[m].totals(logits, batch), m)

    def decoded(self, answers: Sequence[Sequence[int]], batch: Batch) -> Totals:
        """The task's at this length, under names that tell it."""
        m = self._multiple[batch.inputs.shape[1]]
        return _named(self.at[m].decoded(answers, batch), m)

    def scores(self, totals: Totals) -> dict[str, float]:
        """The task's, length by length."""
        found: dict[str, float] = {}
        for m, part in self.at.items():
            own = {name.removesuffix(_suffix(m)): value for name, value in totals.items() if _is_at(name, m)}
            found |= {name + _suffix(m): value for name, value in part.scores(own).items()}
        return found


def _suffix(multiple: int) -> str:
    return "" if multiple == 1 else f"@{multiple}x"


def _is_at(name: str, multiple: int) -> bool:
    return name.endswith(_suffix(multiple)) if multiple > 1 else "@" not in name


def _named(totals: Totals, multiple: int) -> Totals:
    return {name + _suffix(multiple): value for name, value in totals.items()}


def _fewer(limit: int | None, multiple: int) -> int | None:
    return None if limit is None else max(1, limit // multiple)
