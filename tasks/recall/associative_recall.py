"""Associative recall with one query: letters and digits, then a letter again."""

from typing import ClassVar

import numpy as np

from tasks.base import Baseline, Ids, Split, difficulty, whole
from tasks.recall.common import NO_CHANNEL, ONE_HEAD, Recall, fresh, read_out
from tasks.registry import register
from tasks.splits import drawn
from zoo.types import Batch


@register(
    paper="Ba et al. 2016, Using Fast Weights to Attend to the Recent Past, arXiv:1610.06258, section 4.1; Dao, Fu, "
    "Saab et al. 2022, Hungry Hungry Hippos, arXiv:2212.14052, section 3.1 (`repeats`)",
    source="https://github.com/HazyResearch/safari (src/dataloaders/synthetics.py, generate_assoc_recall)",
    deviations=(
        "training examples never repeat, where Ba et al. make 100,000 once (`examples=100000` does so)",
        "two separators before the query as in Ba et al.; the safari file has one",
        "the loss is on the answer alone, where the safari file trains on every next token",
        "with `repeats` a key is asked for in proportion to how often it came; in the safari file all are as likely",
    ),
)
class AssociativeRecall(Recall):
    """Recall the value of one key: c 9 k 8 j 3 f 1 ? ? c → 9.

    `pairs` times a key (token 0..K−1) and its value (K..K+N−1), two separators (K+N), and one of the keys of the
    context, drawn uniformly among the pairs; the target at this last step is its value. Nothing else counts. Values are
    drawn uniformly with replacement. Keys are all different; with `repeats` they are drawn with replacement, and a key
    always has the same value within an example.

    inputs, targets, counted: (B, 2 · pairs + 3). Chance is 1/N. Pairs and query of different splits differ.

    Args:
        keys: K, the letters. values: N, the digits. pairs: pairs per example. repeats: a key may come again.
            `keys=4, values=4, pairs=10, repeats=True` is H3's task of 10 tokens, bar the token that never occurs.
        examples: a finite training set, the same for every seed; None trains on examples that never repeat.
    """

    difficulties: ClassVar = {
        "smoke": difficulty(
            {"keys": 6, "values": 4, "pairs": 4}, 50_000, tokens=200_000, lr=3e-3, batch_tokens=704, **NO_CHANNEL
        ),
        "small": difficulty(
            {"pairs": 8, "repeats": True}, 33_000, tokens=3_000_000, lr=3e-3, batch_tokens=2432, **ONE_HEAD
        ),
        "paper": difficulty(
            {"pairs": 8, "examples": 100_000},
            100_000,
            tokens=200_000_000,
            lr=1e-3,
            batch_tokens=128 * 19,
            train={"weight_decay": 0.0},
            depth=1,
        ),
    }

    def __init__(
        self, *, keys: int = 26, values: int = 10, pairs: int = 8, repeats: bool = False, examples: int | None = None
    ) -> None:
        self.keys, self.values = whole(self.name, "keys", keys), whole(self.name, "values", values, 2)
        self.pairs, self.repeats = whole(self.name, "pairs", pairs), bool(repeats)
        if pairs > keys and not repeats:
            raise ValueError(
                f"associative_recall: pairs must be at most keys = {keys}, got {pairs}; or let keys recur: repeats=True"
            )
        options = {"keys": keys, "values": values, "pairs": pairs, "repeats": self.repeats, "examples": examples}
        self._set(range(keys, keys + values), vocab=keys + values + 1, steps=2 * pairs + 3, **options)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        draws = self.draws(split, seed)

        def pairs_and_query(ids: Ids, attempt: int) -> np.ndarray:
            drawing = draws("keys", attempt)
            keys = (
                drawing.integers(ids, self.pairs, 0, self.keys)
                if self.repeats
                else drawing.sample(ids, self.keys, self.pairs)
            )
            of_key = draws("values", attempt).integers(ids, self.keys, self.answers.start, self.answers.stop)
            content = fresh(ids, 2 * self.pairs + 1, 0)
            content[:, 0:-1:2], content[:, 1::2] = keys, np.take_along_axis(of_key, keys, axis=1)
            asked = draws("query", attempt).integers(ids, 1, 0, self.pairs)
            content[:, -1:] = np.take_along_axis(keys, asked, axis=1)
            return content

        content = drawn(split, ids, pairs_and_query, what=self.name)
        context, query = content[:, :-1], content[:, -1:]
        place = (context[:, 0::2] == query).argmax(axis=1)[:, None]
        answer = np.take_along_axis(context[:, 1::2], place, axis=1)
        return read_out(context, np.concatenate([fresh(ids, 2, self.vocab - 1), query], axis=1), answer)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Guesses that do not look at the query."""
        test = self.tested(limit)
        return self.guesses(test, commonest="the context's commonest", last="the context's last value")
