"""Induction heads: what followed a token once will follow it again."""

from typing import ClassVar

import numpy as np

from tasks.base import Baseline, Ids, Split, difficulty, whole
from tasks.recall.common import NO_CHANNEL, Recall, commonest_so_far, guessed, read_out
from tasks.registry import register
from zoo.types import Batch


@register(
    paper="Gu and Dao 2023, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv:2312.00752, "
    "section 4.1.2 and appendix E.1; Dao, Fu, Saab et al. 2022, H3, arXiv:2212.14052; Olsson et al. 2022",
    source="https://github.com/HazyResearch/safari (src/dataloaders/synthetics.py, generate_induction_head); "
    "state-spaces/mamba has no generator",
    deviations=(
        "one special token in V, where the safari file keeps a second one that never occurs",
        "the loss is on the answer alone, where the safari file trains on every next token",
        "`length` counts the whole input, the last special token included",
    ),
)
class Induction(Recall):
    """Give again the token that followed the special token, when the special token comes back at the end.

    T tokens drawn uniformly from 0..V−2. The special token V−1 stands at one place drawn uniformly from 0..T−3, and
    once more as the last input, where the target is the token that came after the first. Nothing else counts.

    inputs, targets, counted: (B, T). Chance is 1/(V−1): the special token is never an answer. Examples of different
    splits are drawn under different keys; they differ because there are about (V−1)^(T−2) · (T−2) of them.

    Args:
        vocab: V. length: T; `stretched` tests at multiples of it, as the paper does up to 2²⁰.
        examples: a finite training set, the same for every seed; None trains on examples that never repeat.
    """

    difficulties: ClassVar = {
        "smoke": difficulty(
            {"length": 32, "vocab": 8}, 50_000, tokens=200_000, lr=3e-3, batch_tokens=1024, **NO_CHANNEL
        ),
        "small": difficulty({"length": 32}, 50_000, tokens=4_000_000, lr=3e-3, batch_tokens=4096, **NO_CHANNEL),
        "paper": difficulty(
            {"length": 256},
            74_000,
            steps=25 * 8192,
            lr=2e-4,
            batch_tokens=8 * 256,
            train={"schedule": "constant", "warmup": 0.0, "weight_decay": 0.0},
            depth=2,
        ),
    }

    def __init__(self, *, vocab: int = 16, length: int = 256, examples: int | None = None) -> None:
        whole(self.name, "vocab", vocab, 3)
        self.length = whole(self.name, "length", length, 8)
        self._set(range(vocab - 1), vocab=vocab, steps=length, examples=examples, length=length)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        draws = self.draws(split, seed)
        tokens = draws("tokens").integers(ids, self.length, 0, self.vocab - 1)
        first = draws("place").integers(ids, 1, 0, self.length - 2)
        np.put_along_axis(tokens, first, self.vocab - 1, axis=1)
        tokens[:, -1] = self.vocab - 1
        return read_out(tokens[:, :-1], tokens[:, -1:], np.take_along_axis(tokens, first + 1, axis=1))

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Guesses that do not look for the special token."""
        test = self.tested(limit)
        return [
            self.constant(test),
            guessed("commonest", commonest_so_far(test.inputs, self.answers), test, "the input's commonest"),
            guessed("last", np.roll(test.inputs, 1, axis=1), test, "the input's last other token"),
        ]
