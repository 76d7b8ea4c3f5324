"""What the tasks drawn by a rule share: how many examples, under which keys, and guesses that look nothing up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.base import Baseline, Ids, Split, Task, fingerprint, whole
from tasks.baselines import majority
from tasks.draws import Draws
from zoo.types import Batch, Role, Shape

Tokens = NDArray[np.int64]


class Generated(Task):
    """A causal task whose examples are drawn by a rule: training never repeats, or is a finite set.

    A subclass's `__init__` calls `_set`. `answers` are the tokens a right answer may be.
    """

    role: ClassVar[Role] = "lm"
    held_out: ClassVar[dict[Split, int]] = {"tune": 500, "valid": 1000, "test": 3000}
    answers: range
    vocab: int
    train_examples: int | None

    def _set(self, *, vocab: int, examples: int | None, **others: object) -> None:
        """Keep the options. `examples`: size of a training set that is the same for every seed, None for no end."""
        self.vocab = vocab
        self.train_examples = None if examples is None else whole(self.name, "examples", examples)
        self._parts = {"vocab": vocab, "examples": examples, **others}

    @property
    def shape(self) -> Shape:
        """Tokens in, a token out at every step."""
        return Shape(length=self.steps, vocab=self.vocab, outputs=self.vocab)

    @property
    def steps(self) -> int:
        """Length of an input."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Every option."""
        return fingerprint(self.name, 1, **self._parts)

    def count(self, split: Split) -> int | None:
        """Examples in a split; in training `examples`."""
        return self.train_examples if split == "train" else self.held_out[split]

    def draws(self, split: Split, seed: int) -> Callable[..., Draws]:
        """Random numbers of a split, by what they are for; `seed` matters only where training never repeats."""
        return partial(Draws, self.name, split, seed if split == "train" and self.train_examples is None else 0)

    def tested(self, limit: int | None) -> Batch:
        """The test examples that `evaluation("test", limit=limit)` gives, as arrays."""
        return self.examples("test", self.evaluation_ids("test", limit), 0)

    def constant(self, test: Batch) -> Baseline:
        """Always the commonest answer of the tune split."""
        seen = self.examples("tune", np.arange(self.held_out["tune"]), 0)
        value = majority(seen.targets[seen.counted], test.targets[test.counted])
        return Baseline("constant", value, "the tune split's commonest answer")


def accuracy(guesses: Tokens, batch: Batch) -> float:
    """Share of the counted targets (B, T) that the guesses (B, T) meet."""
    return float(np.mean((guesses == batch.targets)[batch.counted]))


def commonest_so_far(inputs: Tokens, among: range) -> Tokens:
    """At each step of (B, T) the token of `among` seen most often up to there; of equals the smallest."""
    best = np.full(inputs.shape, among.start, dtype=np.int64)
    most = np.zeros(inputs.shape, dtype=np.int32)
    for token in among:
        seen = np.cumsum(inputs == token, axis=1, dtype=np.int32)
        best[seen > most] = token
        np.maximum(most, seen, out=most)
    return best


def last_so_far(inputs: Tokens, among: range) -> Tokens:
    """At each step of (B, T) the last token of `among` seen up to there; before the first, the smallest of `among`."""
    here = (inputs >= among.start) & (inputs < among.stop)
    place = np.maximum.accumulate(np.where(here, np.arange(inputs.shape[1]), -1), axis=1)
    return np.where(place < 0, among.start, np.take_along_axis(inputs, np.maximum(place, 0), axis=1))


def nearest_to(inputs: Tokens, among: range, places: NDArray[np.float64]) -> Tokens:
    """For each of `places` (M,) the token of `among` in (B, T) that stands nearest; of equals the first: (B, M)."""
    here = (inputs >= among.start) & (inputs < among.stop)
    nearest = [
        np.where(here, np.abs(np.arange(inputs.shape[1]) - place), np.inf).argmin(axis=1) for place in places.tolist()
    ]
    return np.take_along_axis(inputs, np.stack(nearest, axis=1), axis=1)


def read_out(context: Tokens, cue: Tokens, answers: Tokens) -> Batch:
    """Inputs (B, T + U) of a context (B, T) and a cue (B, U), whose last steps have the answers (B, M) as targets."""
    inputs = np.concatenate([context, cue], axis=1)
    targets, counted = np.zeros_like(inputs), np.zeros(inputs.shape, dtype=bool)
    targets[:, -answers.shape[1] :], counted[:, -answers.shape[1] :] = answers, True
    return Batch(inputs=inputs, targets=targets, counted=counted)


def fresh(ids: Ids, n: int, value: int) -> Tokens:
    """(B, n) tokens of one value."""
    return np.full((len(ids), n), value, dtype=np.int64)
