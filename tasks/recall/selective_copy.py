"""Selective copying: give back the data tokens of a context full of blanks, in order."""

from typing import ClassVar

import numpy as np

from tasks.base import Baseline, Ids, Split, difficulty, whole
from tasks.recall.common import NO_CHANNEL, Recall, fresh, guessed, nearest_to, read_out
from tasks.registry import register
from zoo.types import Batch


@register(
    paper="Gu and Dao 2023, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv:2312.00752, "
    "section 4.1.1 and appendix E.1; Arjovsky et al. 2016 for copying",
    source="https://github.com/state-spaces/s4 (src/dataloaders/datasets/copying.py, variable=True); "
    "state-spaces/mamba has no generator",
    deviations=(
        "`length` is the context, so the input has `length + data` steps; the paper says 4,096 and not of what",
        "data tokens of different splits differ",
    ),
)
class SelectiveCopy(Recall):
    """Copy the data tokens that stand at random places among blanks.

    A context of `length` steps holds M = `data` tokens drawn from 1..V−2 with replacement, at places drawn uniformly
    without replacement; the rest is the blank, 0. M steps of the marker V−1 follow, and the target at the i-th of them
    is the i-th data token. Nothing else counts.

    inputs, targets, counted: (B, length + M). Chance is 1/(V−2): blank and marker are never an answer.

    Args:
        vocab: V. length: steps of the context. data: M.
        examples: a finite training set, the same for every seed; None trains on examples that never repeat.
    """

    difficulties: ClassVar = {
        "smoke": difficulty(
            {"length": 16, "data": 4, "vocab": 8}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=640, **NO_CHANNEL
        ),
        "small": difficulty(
            {"length": 64, "data": 8}, 50_000, tokens=4_000_000, lr=3e-3, batch_tokens=4608, **NO_CHANNEL
        ),
        "paper": difficulty(
            {"length": 4096, "data": 16},
            50_000,
            steps=400_000,
            lr=1e-4,
            batch_tokens=64 * 4112,
            train={"schedule": "constant", "warmup": 0.0, "weight_decay": 0.0},
            **NO_CHANNEL,
        ),
    }

    def __init__(self, *, vocab: int = 16, length: int = 64, data: int = 8, examples: int | None = None) -> None:
        whole(self.name, "vocab", vocab, 4)
        self.length, self.data = whole(self.name, "length", length), whole(self.name, "data", data)
        if data > length:
            raise ValueError(f"selective_copy: data must be at most length = {length}, got {data}")
        self._set(range(1, vocab - 1), vocab=vocab, steps=length + data, examples=examples, length=length, data=data)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        data = self.uniform(split, ids, seed, "tokens", self.data, self.answers.start, self.answers.stop)
        places = np.sort(self.draws(split, seed)("places").sample(ids, self.length, self.data), axis=1)
        context = fresh(ids, self.length, 0)
        np.put_along_axis(context, places, data, axis=1)
        return read_out(context, fresh(ids, self.data, self.vocab - 1), data)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Guesses that keep one token, or that know places and not contents."""
        test = self.tested(limit)
        expected = np.arange(1, self.data + 1) * (self.length + 1) / (self.data + 1) - 1
        near = np.zeros_like(test.targets)
        near[:, self.length :] = nearest_to(test.inputs, self.answers, expected)
        return [
            *self.guesses(test, commonest="the context's commonest", last="the context's last data token"),
            guessed("expected place", near, test, "the data token nearest to where the i-th stands on average"),
        ]
