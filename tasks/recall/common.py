"""What tasks of recall share: their shape, how a question is laid out, and guesses that look nothing up."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.base import Baseline, Ids, Metric
from tasks.generated import Generated
from zoo.types import Batch, Role, Shape

Tokens = NDArray[np.int64]
NO_CHANNEL: dict[str, Any] = {"channel": None, "depth": 2}
ONE_HEAD: dict[str, Any] = {"channel": None, "heads": 1, "depth": 2}
"""Models of two layers, without channel mixers."""


class Recall(Generated):
    """A causal task drawn by a rule. `answers` are the tokens a right answer may be."""

    role: ClassVar[Role] = "lm"
    answers: range
    length: int
    vocab: int

    def _set(self, answers: range, *, vocab: int, steps: int, chance: float | None = None, **options: object) -> None:
        """Keep the options, and ask for one of `answers` at every counted step: by chance one of them is right."""
        self.answers, self.vocab = answers, vocab
        self.shape = Shape(length=steps, vocab=vocab, outputs=vocab)
        self.metric = Metric("accuracy", higher_is_better=True, chance=chance or 1 / len(answers))
        self._keep(vocab=vocab, **options)

    def guesses(self, test: Batch, *, commonest: str, last: str) -> list[Baseline]:
        """One answer always; at each step the answer seen most often up to there; and the one seen last."""
        return [
            self.constant(test),
            guessed("commonest", commonest_so_far(test.inputs, self.answers), test, commonest),
            guessed("last", last_so_far(test.inputs, self.answers), test, last),
        ]


def guessed(name: str, guesses: Tokens, batch: Batch, about: str) -> Baseline:
    """The share of the counted targets (B, T) that the guesses (B, T) meet."""
    return Baseline(name, float(np.mean((guesses == batch.targets)[batch.counted])), about)


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
