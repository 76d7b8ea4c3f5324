"""One task under its options, its examples as hashes, and how a check says what went wrong."""

from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np

from tasks import registry
from tasks.base import DataError, Ids, Split, Task
from zoo.types import Batch

CAP = 20_000
"""Examples of a split that are compared with those of the others."""

SCORED = 500
"""Test examples that are scored."""

NUMBERS = 200_000_000
"""Logits that scoring makes, at most; 1/20 of it at a time."""


class Subject:
    """One task under its options."""

    def __init__(self, name: str, options: dict[str, Any] | None = None) -> None:
        self.entry = registry.get(name)
        self.difficulties = dict(self.entry.make.difficulties)
        smoke = self.difficulties.get("smoke")
        self.options = dict(options or (smoke.options if smoke else {}))

    def build(self, **changes: Any) -> Task:
        """A new task, under the options with `changes`."""
        return registry.build(self.entry.name, **{**self.options, **changes})

    @cached_property
    def task(self) -> Task:
        """The task that most checks look at."""
        return self.build()

    @property
    def built_in(self) -> bool:
        """Whether it is one of the benchmark's own."""
        return any(self.entry.make.__module__.startswith(f"tasks.{family}.") for family in registry.FAMILIES)

    @cached_property
    def missing(self) -> str:
        """Why its data cannot be had; empty where it is here."""
        try:
            self.build().examples("test", np.arange(1, dtype=np.int64), 0)
        except DataError as error:
            return str(error)
        except Exception:  # each check says so by itself
            return ""
        return ""

    @cached_property
    def test(self) -> list[Batch]:
        """The test examples that are scored, in batches of a moderate number of logits."""
        return list(self.task.evaluation("test", size=self.size, limit=self.limit))

    @property
    def limit(self) -> int:
        """How many test examples are scored."""
        return max(32, min(SCORED, NUMBERS // self._numbers))

    @property
    def size(self) -> int:
        """Examples in a batch that is scored."""
        return max(1, min(64, NUMBERS // 20 // self._numbers))

    @property
    def _numbers(self) -> int:
        """Logits for one example."""
        shape, role = self.task.shape, self.task.role
        steps = {"classify": 1, "retrieve": 1, "seq2seq": shape.target_length or 1}.get(role, shape.length)
        return steps * shape.outputs


def rows(batch: Batch) -> list[bytes]:
    """A hash of each example: of the names, types and bytes of its arrays."""
    arrays = [(name, np.ascontiguousarray(array)) for name, array in batch.arrays().items()]
    kinds = " ".join(f"{name} {array.dtype} {array.shape[1:]}" for name, array in arrays).encode()
    data = np.concatenate([array.reshape(len(batch), -1).view(np.uint8) for _, array in arrays], axis=1)
    return [blake2b(kinds + row.tobytes(), digest_size=16).digest() for row in data]


def some(task: Task, split: Split, n: int) -> Ids:
    """At most `n` ids of a split, in no order, the first and the last among them; a far one where there is no end."""
    total = task.count(split)
    last = 1_000_003 if total is None else total - 1
    ids = dict.fromkeys(int(i) for i in (min(5, last), 0, *(31 * i % (last + 1) for i in range(1, n - 2)), last))
    return np.array(list(ids), dtype=np.int64)


def named(error: Exception) -> str:
    """An error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
