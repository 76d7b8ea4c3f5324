"""Tasks drawn by a rule: how many examples they have, and under which keys random numbers are drawn."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np

from tasks.base import Baseline, Ids, Split, Task, fingerprint, whole
from tasks.baselines import accuracy, commonest
from tasks.draws import Draws
from tasks.splits import drawn
from zoo.types import Batch


class Generated(Task):
    """A task whose examples are drawn by a rule: training never repeats, or is a finite set.

    A subclass's `__init__` calls `_keep` with all its options.
    """

    held_out: ClassVar[dict[Split, int]] = {"tune": 500, "valid": 1000, "test": 3000}
    """Examples of the other splits."""
    formerly: ClassVar[str] = ""
    """A name it had before, under which its examples are still drawn."""
    train_examples: int | None = None

    def _keep(self, **options: object) -> None:
        """Every option goes into the fingerprint. `examples`, where there is one, is the size of a training set that is
        the same for every seed; None for no end."""
        examples = options.get("examples")
        self.train_examples = None if examples is None else whole(self.name, "examples", examples)
        self.fingerprint = fingerprint(self.formerly or self.name, 1, **options)

    def count(self, split: Split) -> int | None:
        return self.train_examples if split == "train" else self.held_out[split]

    def draws(self, split: Split, seed: int) -> Callable[..., Draws]:
        """Random numbers of a split, by what they are for; `seed` matters only where training never repeats."""
        fresh = split == "train" and self.train_examples is None
        return partial(Draws, self.formerly or self.name, split, seed if fresh else 0)

    def uniform(self, split: Split, ids: Ids, seed: int, what: str, n: int, low: int, high: int) -> Ids:
        """Uniform integers in [low, high), shape (N, n), in rows that no other split has."""
        draws = self.draws(split, seed)
        return drawn(
            split, ids, lambda some, attempt: draws(what, attempt).integers(some, n, low, high), what=self.name
        )

    def tested(self, limit: int | None) -> Batch:
        """The test examples that `evaluation("test", limit=limit)` gives, as arrays."""
        return self.examples("test", self.evaluation_ids("test", limit), 0)

    def tuned(self) -> Batch:
        """The tune split, as arrays: what baselines count their guesses on."""
        return self.examples("tune", np.arange(self.held_out["tune"]), 0)

    def constant(self, test: Batch) -> Baseline:
        """Always the commonest answer of the tune split."""
        seen = self.tuned()
        answer = commonest(seen.targets[seen.counted])
        return accuracy("constant", answer, test.targets[test.counted], "the tune split's commonest answer")
