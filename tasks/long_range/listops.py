"""ListOps: evaluate nested lists of operators and digits."""

from typing import ClassVar

import numpy as np

from tasks.base import Baseline, Ids, Metric, Split, Task, difficulty, whole
from tasks.baselines import accuracy, commonest
from tasks.draws import Draws
from tasks.generated import Generated
from tasks.registry import register
from tasks.splits import SHARES
from zoo.types import Batch, Shape

SEEN = 5000
"""Training examples that the baselines learn from."""
ATTEMPTS = 20_000_000
"""Trees grown for one example before it is given up."""


@register(
    paper="Tay et al. 2020, Long Range Arena, arXiv:2011.04006, section 2.2.1; "
    "Nangia and Bowman 2018, ListOps: A Diagnostic Dataset for Latent Tree Learning, arXiv:1804.06028",
    source="https://github.com/google-research/long-range-arena (lra_benchmarks/data/listops.py)",
    deviations=(
        "training examples never repeat, where the official generator makes 96,000 once (`examples=96000` does so)",
        "the defaults are a small form; the official one is difficulty `paper`",
        "splits go by content; within a split two examples may be equal (at the paper's lengths none are)",
        "closing brackets are tokens; the first version of the official pipeline dropped them",
    ),
)
class Listops(Generated):
    """Evaluate an expression such as `[MAX 4 [SM 7 8 ] 0 [MED 9 1 5 ] ]`: one of ten digits.

    A node at a depth below `max_depth` (the root's is 1) is an operator with probability 1/4 and else a digit; at
    `max_depth` it is a digit. Operators have 2 to `max_args` arguments: `MIN`, `MAX`, `MED` (the median, rounded down),
    `SM` (the sum modulo 10). Trees are drawn until one has more than `min_length` and fewer than `max_length` tokens;
    operators (with their bracket), closing brackets and digits are a token each, parentheses are not written.

    inputs (B, `max_length`): 0 where padded, `[MIN` `[MAX` `[MED` `[SM` 1 to 4, `]` 5, digits 6 to 15. mask the same
    shape. targets (B,): the value. An example's split is the `tasks.splits.home` of its padded tokens.

    The baseline "depth d" evaluates what stands in the root and the operators to depth d exactly, and leaves out
    operators that stand deeper, as if they were not among their operator's arguments (an operator that is left with no
    argument is left out too; if it is the root, the answer is the commonest value in training).

    Args:
        max_depth, max_args, min_length, max_length: as the official flags.
        examples: a finite training set, the same for every seed; None trains on examples that never repeat.

    Raises:
        ValueError: when examples are made, if trees of these lengths are so rare that none is found.
    """

    role = "classify"
    metric = Metric("accuracy", higher_is_better=True, chance=0.1)
    held_out: ClassVar[dict[Split, int]] = {"tune": 500, "valid": 2000, "test": 2000}
    difficulties: ClassVar = {
        "smoke": difficulty(
            {"min_length": 10, "max_length": 60, "max_depth": 6, "max_args": 5},
            50_000,
            tokens=200_000,
            lr=2e-3,
            batch_tokens=1920,
            depth=2,
            heads=2,
        ),
        "small": difficulty(
            {"min_length": 20, "max_length": 128, "max_depth": 6, "max_args": 5},
            200_000,
            tokens=4_000_000,
            lr=1e-3,
            batch_tokens=4096,
            depth=4,
            heads=4,
        ),
        "paper": difficulty(
            {"min_length": 500, "max_length": 2000, "max_depth": 10, "max_args": 10, "examples": 96_000},
            19_000_000,
            steps=5000,
            lr=1.6e-3,
            batch_tokens=64_000,
            train={"weight_decay": 0.1},
            depth=6,
            heads=8,
        ),
    }

    def __init__(
        self,
        *,
        min_length: int = 20,
        max_length: int = 128,
        max_depth: int = 6,
        max_args: int = 5,
        examples: int | None = None,
    ) -> None:
        self.min_length, self.max_length = whole("listops", "min_length", min_length), max_length
        whole("listops", "max_length", max_length, max(min_length + 2, 5))
        self.max_depth = whole("listops", "max_depth", max_depth, 2)
        self.max_args = whole("listops", "max_args", max_args, 2)
        self.shape = Shape(length=max_length, vocab=16, outputs=10)
        lengths = {"min_length": min_length, "max_length": max_length}
        self._keep(**lengths, max_depth=max_depth, max_args=max_args, examples=examples)
        longest = 1
        for _ in range(max_depth - 1):
            longest = min(2 + max_args * longest, max_length)
        if longest <= min_length:
            raise ValueError(
                f"listops: max_depth={max_depth} and max_args={max_args} give at most {longest} tokens, "
                f"min_length asks for more than {min_length}: raise max_depth or max_args"
            )

    def stretched(self, multiple: int) -> Task:
        """Both lengths times `multiple`, and one level of depth more for each doubling.

        Trees of the old depth would be too rare, so longer examples are deeper as well.
        """
        whole("listops", "multiple", multiple)
        return self._with(
            min_length=multiple * self.min_length,
            max_length=multiple * self.max_length,
            max_depth=self.max_depth + (multiple - 1).bit_length(),
        )

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        from tasks.long_range.trees import grow

        place = list(SHARES).index(split)
        borders = np.cumsum([0, *SHARES.values()]).astype(float)
        inputs, targets, sizes = grow(
            self.draws(split, seed)("trees").bits(ids, 1)[:, 0],
            (self.min_length, self.max_length),
            self.max_depth,
            self.max_args,
            (borders[place], borders[place + 1]),
            np.uint64(Draws("content").key),
            ATTEMPTS,
        )
        if not sizes.all():
            raise ValueError(
                f"listops: none of {ATTEMPTS:,} trees had more than {self.min_length} and fewer than "
                f"{self.max_length} tokens and belonged to split {split!r}: change max_depth, max_args or the lengths"
            )
        return Batch(inputs=inputs, targets=targets, mask=np.arange(self.max_length) < sizes[:, None])

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Guesses from part of the tree."""
        from tasks.long_range.trees import truncated

        test = self.tested(limit)
        seen = self.examples("train", np.arange(min(self.train_examples or SEEN, SEEN)), 0)
        value, root = commonest(seen.targets), seen.inputs[:, 0]
        by_root = np.array([np.bincount(seen.targets[root == op], minlength=1).argmax() for op in range(5)])
        by_first = "the commonest value in training under the root's operator: the first token alone"
        found = [
            accuracy("majority", value, test.targets, "always the commonest value in training"),
            accuracy("root operator", by_root[test.inputs[:, 0]], test.targets, by_first),
        ]
        for depth in (1, 2, 3):
            about, guesses = f"the value without operators deeper than {depth}", truncated(test.inputs, depth, value)
            found.append(accuracy(f"depth {depth}", guesses, test.targets, about))
        return found
