"""Word problems: the running product of elements of a finite group."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from tasks.base import Baseline, Ids, Metric, Split, Totals, difficulty, whole
from tasks.baselines import commonest
from tasks.generated import Generated
from tasks.registry import register
from zoo.types import Batch, Shape

if TYPE_CHECKING:
    from torch import Tensor

Group: TypeAlias = Literal["S3", "S5", "A5", "A4xZ5", "Z60", "Z2"]
Score: TypeAlias = Literal["exact", "accuracy"]
ORDERS: dict[str, int] = {"S3": 6, "S5": 120, "A5": 60, "A4xZ5": 60, "Z60": 60, "Z2": 2}
"""How many elements each group has."""
HEAD = 12
"""Elements by which a sequence belongs to a split."""


def _is_even(p: tuple[int, ...]) -> bool:
    return sum(p[i] > p[j] for j in range(len(p)) for i in range(j)) % 2 == 0


@lru_cache(maxsize=16)
def cayley(group: str) -> Ids:
    """The Cayley table of a group: entry (a, b) is the number of a·b, shape (n, n); element 0 is the identity.

    Elements are numbered as by the `abstract_algebra` package that made the official data: permutations in
    lexicographic order (alternating groups: the even ones of these), with (p·q)(i) = p(q(i)), so that the right factor
    acts first; residues in their order, added; pairs with the second member running fastest.

    Args:
        group: Sn, An, Zn, or a product of these such as A4xZ5.
    """
    if "x" in group:
        first, second = (cayley(part) for part in group.split("x", 1))
        n, m = len(first), len(second)
        return (first[:, None, :, None] * m + second[None, :, None, :]).reshape(n * m, n * m)
    n = int(group[1:])
    if group[0] == "Z":
        return np.add.outer(np.arange(n), np.arange(n)) % n
    elements = [p for p in permutations(range(n)) if group[0] == "S" or _is_even(p)]
    number = {p: i for i, p in enumerate(elements)}
    table = [number[tuple(p[i] for i in q)] for p, q in product(elements, repeat=2)]
    return np.array(table, dtype=np.int64).reshape(len(elements), len(elements))


@register(
    paper="Merrill, Petty and Sabharwal 2024, The Illusion of State in State-Space Models, arXiv:2404.08819, section 5",
    source="https://github.com/jopetty/word-problem (src/generate_data.py, src/main.py)",
    deviations=(
        "no start token in front, whose target was the start token itself",
        "all sequences have `length` elements; the official training set also has all shorter lengths from 2 on, which "
        "are prefixes here, as every step has a target",
        "training examples never repeat, where the official code splits a file of 1,000,000 sequences 80 to 20",
        "splits share no sequence: the split of a sequence follows from its first 12 elements",
        "the paper reports the fewest layers that reach 90 %; here the share of sequences that are all right is the "
        "score by default, which the official code stops by",
        "S3 is in the official data, not in the paper; Z2 in neither",
    ),
)
class WordProblem(Generated):
    """The running product of elements of a group, at every step.

    Inputs are elements x₁ x₂ … drawn uniformly, targets y_t = x₁·x₂·…·x_t, all of which count; numbers and the product
    are those of `cayley`. The word problem of S5 and A5 is complete for NC¹, that of A4xZ5 (solvable) and Z60 (abelian)
    is not, if TC⁰ ≠ NC¹. That of Z2 is the parity of every prefix, which asks a linear state for a negative eigenvalue
    (Grazzi et al. 2025, arXiv:2411.12537, theorem 1).

    `exact` is the share of sequences that are right at every step; `accuracy` that of right steps, `last` that of right
    last steps. inputs, targets: (B, T).

    Args:
        group: S5 (120 elements), A5, A4xZ5, Z60 (60), S3 (6) or Z2. length: T. score: what a board ranks by, `exact` or
            `accuracy`.
    """

    role = "lm"
    difficulties: ClassVar = {
        "smoke": difficulty(
            {"group": "S3", "length": 8}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=512, depth=2, heads=2
        ),
        "small": difficulty(
            {"group": "S3", "length": 24}, 50_000, tokens=1_500_000, lr=3e-3, batch_tokens=1536, depth=1, heads=2
        ),
        "paper": difficulty(
            {"group": "S5", "length": 20},
            3_200_000,
            tokens=8_000_000_000,
            lr=1e-4,
            batch_tokens=640,
            train={"weight_decay": 0.01, "schedule": "constant"},
            depth=1,
            heads=8,
        ),
    }

    def __init__(self, *, group: Group = "S5", length: int = 12, score: Score = "exact") -> None:
        if group not in get_args(Group):
            raise ValueError(f"word_problem: group must be one of {', '.join(get_args(Group))}, got {group!r}")
        if score not in get_args(Score):
            raise ValueError(f"word_problem: score must be exact or accuracy, got {score!r}")
        self.group, self.length, self.order = group, whole("word_problem", "length", length, 2), ORDERS[group]
        if self.order**length < 10_000:
            raise ValueError(f"word_problem: {group} has only {self.order**length} sequences of {length}; raise length")
        right = float(self.order) ** -length if score == "exact" else 1 / self.order
        self.metric = Metric(score, higher_is_better=True, chance=right)
        self.also = ("accuracy" if score == "exact" else "exact", "last")
        self.shape = Shape(length=length, vocab=self.order, outputs=self.order)
        other = {} if score == "exact" else {"score": score}  # baselines are kept by fingerprint
        self._keep(group=group, length=length, **other)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        head = self.uniform(split, ids, seed, "head", min(HEAD, self.length), 0, self.order)
        tail = self.draws(split, seed)("tail").integers(ids, self.length - head.shape[1], 0, self.order)
        inputs = np.concatenate([head, tail], axis=1)
        table, targets = cayley(self.group), inputs.copy()
        for step in range(1, self.length):
            targets[:, step] = table[targets[:, step - 1], inputs[:, step]]
        return Batch(inputs=inputs, targets=targets)

    def totals(self, logits: Tensor, batch: Batch) -> Totals:
        """The loss and `accuracy` per step, `exact` and `last` per sequence."""
        right, sequences = logits.argmax(-1) == batch.targets, float(len(batch))
        return {
            **super().totals(logits, batch),
            "exact": (float(right.all(-1).sum()), sequences),
            "last": (float(right[:, -1].sum()), sequences),
        }

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Guesses without a state."""
        test, seen = self.tested(limit), self.tuned()
        common = commonest(seen.targets.ravel())
        pairs = test.inputs.copy()
        pairs[:, 1:] = cayley(self.group)[test.inputs[:, :-1], test.inputs[:, 1:]]
        steps = np.mean(test.targets == common)

        def score(guess: Ids) -> float:
            right = guess == test.targets
            return float((right.all(axis=1) if self.metric.name == "exact" else right).mean())

        guesses = [
            ("constant", np.full_like(test.targets, common), f"one element always, right at {steps:.4f} of the steps"),
            ("last element", test.inputs, "the element itself: no product"),
            ("last pair", pairs, "the product of the last two elements"),
        ]
        return [Baseline(name, score(guess), about) for name, guess, about in guesses]
