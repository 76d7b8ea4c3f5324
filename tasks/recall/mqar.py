"""Multi-query associative recall: look up what stood behind a key."""

from typing import ClassVar

import numpy as np

from tasks.base import Baseline, Ids, Split, Task, difficulty, whole
from tasks.baselines import accuracy
from tasks.recall.common import ONE_HEAD, Recall
from tasks.registry import register
from zoo.types import Batch


@register(
    paper="Arora et al. 2023, Zoology: Measuring and Improving Recall in Efficient Language Models, arXiv:2312.04927, "
    "section 4.1 and appendix E",
    source="https://github.com/HazyResearch/zoology (zoology/data/multiquery_ar.py)",
    deviations=(
        "training examples never repeat, where the official generator makes 100,000 once (`examples=100000` does so)",
        "`random_non_queries` defaults to False, as in the paper's text; the official file's default is now True",
        "lengths may be odd, and the vocabulary smaller than the length",
        "one pass through the pairs (the official file's num_passes=1)",
    ),
    formerly=("recall",),
)
class Mqar(Recall):
    """Recall the values that belong to keys seen before (MQAR).

    A context of `pairs` keys and values, k₁ v₁ k₂ v₂ …, then each key once more, as a query; the target at a query is
    its value, and nothing else counts. Keys are drawn from [1, V/2), values from [V/2, V), both without replacement.
    The query of pair i stands 2·gᵢ tokens behind the context; the gaps g are drawn without replacement, one after
    another, with p(g) ∝ a (g+1)^(a−1) over ⌊(T − 2·pairs)/2⌋ slots. What is left is token 0, or random tokens.

    inputs, targets (0 where not counted), counted: (B, T). Examples of different splits are drawn under different keys.
    They differ because there are so many: 63!/55! · 64!/56! contexts by default. With a dozen tokens they do not.

    Args:
        vocab: V. length: T. pairs: keys per example; `stretched` grows both. power_a: a; 1 spreads the queries evenly.
        examples: a finite training set, the same for every seed; None trains on examples that never repeat.
        random_non_queries: fill the blanks with tokens drawn from [0, V).
    """

    formerly = "recall"
    difficulties: ClassVar = {
        "smoke": difficulty(
            {"vocab": 32, "length": 32, "pairs": 4}, 33_000, tokens=200_000, lr=3e-3, batch_tokens=1024, **ONE_HEAD
        ),
        "small": difficulty(
            {"vocab": 128, "length": 64, "pairs": 8}, 33_000, tokens=800 * 4096, lr=3e-3, batch_tokens=4096, **ONE_HEAD
        ),
        "paper": difficulty(
            {"vocab": 8192, "length": 512, "pairs": 64, "examples": 100_000},
            33_000,
            tokens=64 * 100_000 * 512,
            lr=2.15e-3,
            batch_tokens=128 * 512,
            train={"weight_decay": 0.1},
            **ONE_HEAD,
        ),
    }
    """The paper's runs 64 epochs in batches of 128, at widths of 64 (these parameters) to 512 and the best learning
    rate of logspace(−4, −2, 4); its mixers without attention have four layers."""

    def __init__(
        self,
        *,
        vocab: int = 128,
        length: int = 64,
        pairs: int = 8,
        power_a: float = 0.01,
        examples: int | None = None,
        random_non_queries: bool = False,
    ) -> None:
        self.vocab, self.length = whole("mqar", "vocab", vocab, 4), whole("mqar", "length", length, 4)
        self.pairs, self.power_a = whole("mqar", "pairs", pairs), float(power_a)
        self.random_non_queries = random_non_queries
        if 4 * pairs > length:
            raise ValueError(f"mqar: pairs must be at most length / 4 = {length // 4}, got {pairs}")
        if pairs > vocab // 2 - 1:
            raise ValueError(f"mqar: pairs must be at most vocab / 2 - 1 = {vocab // 2 - 1} (the keys), got {pairs}")
        if not 0 < self.power_a < float("inf"):
            raise ValueError(f"mqar: power_a must be above 0, got {power_a}")
        self._set(
            range(vocab // 2, vocab),
            vocab=vocab,
            steps=length,
            length=length,
            pairs=pairs,
            power_a=self.power_a,
            examples=examples,
            random_non_queries=random_non_queries,
        )

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        draws, half = self.draws(split, seed), self.vocab // 2
        keys = 1 + draws("keys").sample(ids, half - 1, self.pairs)
        values = half + draws("values").sample(ids, self.vocab - half, self.pairs)
        gaps = draws("gaps").sample(ids, len(self.gap_weights), self.pairs, self.gap_weights)
        inputs = np.zeros((len(ids), self.length), dtype=np.int64)
        inputs[:, 0 : 2 * self.pairs : 2], inputs[:, 1 : 2 * self.pairs : 2] = keys, values
        places = 2 * self.pairs + 2 * gaps
        np.put_along_axis(inputs, places, keys, axis=1)
        if self.random_non_queries:
            inputs = np.where(inputs == 0, draws("blanks").integers(ids, self.length, 0, self.vocab), inputs)
        targets, counted = np.zeros_like(inputs), np.zeros(inputs.shape, dtype=bool)
        np.put_along_axis(targets, places, values, axis=1)
        np.put_along_axis(counted, places, True, axis=1)
        return Batch(inputs=inputs, targets=targets, counted=counted)

    def stretched(self, multiple: int) -> Task:
        """As many times the steps and the pairs, so that longer inputs ask more of a state."""
        return self._with(length=multiple * self.length, pairs=multiple * self.pairs)

    @property
    def gap_weights(self) -> np.ndarray:
        """What the probability of each gap is proportional to, shape (slots,)."""
        slots = (self.length - 2 * self.pairs) // 2
        return self.power_a * np.arange(1.0, slots + 1) ** (self.power_a - 1)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Guesses that look up nothing."""
        test = self.tested(limit)
        answers = test.targets[test.counted].reshape(-1, self.pairs)
        values = test.inputs[:, 1 : 2 * self.pairs : 2]
        return [
            self.constant(test),
            accuracy("last value", values[:, -1:], answers, "the context's last value at each query"),
            accuracy("in order", values, answers, "the context's i-th value at the i-th query"),
        ]
