"""Generated pairs of sequences: reverse, sort, add."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.base import Baseline, Decoding, Ids, Metric, Split, Task, Totals, difficulty, whole
from tasks.draws import Draws
from tasks.generated import Generated
from tasks.registry import register
from tasks.seq2seq.written import FIRST, START, STOP, answers, shifted
from tasks.splits import drawn
from zoo.types import Batch, Shape


class Written(Generated):
    """A task whose answer is exactly right or wrong. `totals` gives the accuracy per token, teacher-forced, beside it.

    A row of contents (N, L) is one example: what `drawn` sends to a split.
    """

    role = "seq2seq"

    def _expects(self, source: int, answer: int, vocab: int, symbols: int, chance: float) -> None:
        """At most `source` tokens below `vocab` in, at most `answer` symbols and the stop token out."""
        self.vocab = vocab
        self.shape = Shape(length=source, vocab=vocab, outputs=symbols + FIRST, target_length=answer + 1)
        self.metric = Metric("exact", higher_is_better=True, chance=chance)
        self.decoding = Decoding(START, STOP, longest=answer + 1)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        draws = self.draws(split, seed)
        contents = drawn(
            split, ids, lambda some, attempt: self._contents(some, partial(draws, attempt)), what=self.name
        )
        source, lengths = self._source(contents)
        mask = np.arange(source.shape[1]) < lengths[:, None]
        return Batch(inputs=source * mask, mask=mask, **shifted(*self._answer(contents)))

    def decoded(self, answers: Sequence[Sequence[int]], batch: Batch) -> Totals:
        """`exact`: the share of answers that are right from the first symbol to the stop token."""
        return {"exact": (float(sum(_right(answers, batch))), float(len(batch)))}

    def stretched(self, multiple: int) -> Task:
        """The same task on inputs longer than any in training: above the longest, up to `multiple` times that."""
        size = next(option for option in ("length", "digits") if hasattr(self, option))
        longest = getattr(self, size)
        beyond = {"shortest": longest + 1} if multiple > 1 else {}
        return self._with(**{size: multiple * longest}, **beyond)

    @abstractmethod
    def _contents(self, ids: Ids, draws: Callable[..., Draws]) -> Ids:
        """What makes each example, (N, L)."""

    @abstractmethod
    def _source(self, contents: Ids) -> tuple[Ids, Ids]:
        """Source tokens (N, S) and their number (N,)."""

    @abstractmethod
    def _answer(self, contents: Ids) -> tuple[Ids, Ids]:
        """Symbols of the answer (N, L) and their number (N,)."""


def _right(written: Sequence[Sequence[int]], batch: Batch) -> list[bool]:
    return [list(own) == right for own, right in zip(written, answers(batch.targets), strict=True)]


class Rearranged(Written):
    """A task that writes the source's own symbols in another order: contents are symbols plus 1, padded with 0.

    A source has n symbols of [0, V), n and each symbol uniform. inputs, mask: (B, length). decoder_inputs, targets,
    counted: (B, length + 1), symbol s as token s + 2. Chance is a guess of the right length with uniform symbols.

    Args:
        length: the largest n. vocab: V. shortest: the smallest n.
    """

    difficulties: ClassVar = {
        "smoke": difficulty({"length": 6, "vocab": 8}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=2048, depth=2),
        "small": difficulty(
            {"length": 16, "vocab": 32}, 200_000, tokens=3_000_000, lr=3e-3, batch_tokens=2048, depth=2
        ),
    }

    def __init__(self, *, length: int = 16, vocab: int = 32, shortest: int = 1) -> None:
        self.length, self.shortest = whole(self.name, "length", length), whole(self.name, "shortest", shortest)
        whole(self.name, "vocab", vocab, 2)
        if shortest > length:
            raise ValueError(f"{self.name}: shortest must be at most length = {length}, got {shortest}")
        chance = float(np.mean(float(vocab) ** -np.arange(shortest, length + 1)))
        self._expects(length, length, vocab, vocab, chance)
        self._keep(length=length, vocab=vocab, shortest=shortest)

    def _contents(self, ids: Ids, draws: Callable[..., Draws]) -> Ids:
        lengths = draws("length").integers(ids, 1, self.shortest, self.length + 1)
        symbols = draws("symbols").integers(ids, self.length, 1, self.vocab + 1)
        return symbols * (np.arange(self.length) < lengths)

    def _source(self, contents: Ids) -> tuple[Ids, Ids]:
        return contents - 1, (contents > 0).sum(axis=1)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """The source, unchanged: right where there is nothing to do."""
        batch = self.tested(limit)
        lengths = batch.mask.sum(axis=1).tolist()
        copies = [row[:n] for row, n in zip((batch.inputs + 2).tolist(), lengths, strict=True)]
        return [Baseline("copy", float(np.mean(_right(copies, batch))), "the source as it stands")]


@register(
    paper="Grefenstette et al. 2015, Learning to Transduce with Unbounded Memory, arXiv:1506.02516, section 4.1",
    deviations=(
        "lengths and vocabulary are options; the paper trains on 8 to 64 of 128 symbols and tests on 65 to 128: "
        "`shortest=8, length=64, vocab=128`, and stretched twofold",
    ),
)
class Reverse(Rearranged):
    """Write a sequence backwards.

    Splits are disjoint by content: of sequences as short as one or two symbols, some are never seen in training.
    Sources, arrays, chance and options: see `Rearranged`.
    """

    difficulties: ClassVar = {
        **Rearranged.difficulties,
        "paper": difficulty(
            {"shortest": 8, "length": 64, "vocab": 128}, 2_000_000, tokens=100_000_000, lr=1e-3, batch_tokens=4096
        ),
    }

    def _answer(self, contents: Ids) -> tuple[Ids, Ids]:
        n = (contents > 0).sum(axis=1)
        places = n[:, None] - 1 - np.arange(self.length)
        return np.take_along_axis(contents - 1, np.maximum(places, 0), axis=1), n


@register(
    paper="Vinyals et al. 2016, Order Matters: Sequence to Sequence for Sets, arXiv:1511.06391 (sorting)",
    deviations=("symbols of a finite alphabet, which may repeat, where the paper sorts real numbers with pointers",),
)
class Sort(Rearranged):
    """Write the symbols of a sequence in ascending order.

    Equal ones stand side by side. Splits are disjoint by content: the source, not the set of its symbols. Sources,
    arrays, chance and options: see `Rearranged`.
    """

    difficulties: ClassVar = {
        **Rearranged.difficulties,
        "paper": difficulty({"length": 15, "vocab": 128}, 2_000_000, tokens=100_000_000, lr=1e-3, batch_tokens=4096),
    }

    def _answer(self, contents: Ids) -> tuple[Ids, Ids]:
        last = np.where(contents > 0, contents, self.vocab + 1)
        n = (contents > 0).sum(axis=1)
        return np.where(np.arange(self.length) < n[:, None], np.sort(last, axis=1) - 1, 0), n


@register(
    paper="Lee et al. 2023, Teaching Arithmetic to Small Transformers, arXiv:2307.03381, section 3 (plain and reverse)",
    source="https://github.com/lee-ny/teaching_arithmetic",
    deviations=(
        "source and target of a sequence-to-sequence model, where the paper continues one text",
        "each operand's number of digits is uniform, so that short and long sums are equally frequent",
    ),
)
class Addition(Written):
    """Add two whole numbers, written in decimal digits: from `a+b` to the sum.

    Each operand has n digits, n uniform, each digit uniform, the first not 0 unless it is the only one. Source tokens
    are digits 0–9, and 10 for `+`; the sum has no leading zeros. Splits are disjoint by (a, b), in this order.

    inputs, mask: (B, 2·digits + 1). decoder_inputs, targets, counted: (B, digits + 2), digit d as token d + 2. Chance
    is a guess of as many uniform digits as the longer operand has; that some sums have one more is left out.

    Args:
        digits: the largest n. backwards: write the sum from the units on, the order in which carries come about.
        shortest: the smallest n.
    """

    difficulties: ClassVar = {
        "smoke": difficulty(
            {"digits": 2, "backwards": True}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=2048, depth=2
        ),
        "small": difficulty({"digits": 5}, 200_000, tokens=3_000_000, lr=3e-3, batch_tokens=2048, depth=2),
        "paper": difficulty({"digits": 3}, 10_000_000, tokens=10_000_000, lr=1e-3, batch_tokens=4096, depth=6, heads=6),
    }

    def __init__(self, *, digits: int = 5, backwards: bool = False, shortest: int = 1) -> None:
        self.digits, self.shortest = whole("addition", "digits", digits), whole("addition", "shortest", shortest)
        self.backwards = bool(backwards)
        if shortest > digits:
            raise ValueError(f"addition: shortest must be at most digits = {digits}, got {shortest}")
        longer = np.maximum.outer(*[np.arange(shortest, digits + 1)] * 2)
        self._expects(2 * digits + 1, digits + 1, 11, 10, float(np.mean(10.0**-longer)))
        self._keep(digits=digits, backwards=self.backwards, shortest=shortest)

    def _contents(self, ids: Ids, draws: Callable[..., Draws]) -> Ids:
        lengths = draws("lengths").integers(ids, 2, self.shortest, self.digits + 1)
        drawn_ = draws("digits").integers(ids, 2 * self.digits, 0, 10).reshape(-1, 2, self.digits)
        first = draws("first").integers(ids, 2, 1, 10)
        drawn_[..., 0] = np.where(lengths > 1, first, drawn_[..., 0])
        valid = np.arange(self.digits) < lengths[..., None]
        return np.where(valid, drawn_, -1).reshape(len(ids), -1)

    def _source(self, contents: Ids) -> tuple[Ids, Ids]:
        plus = np.full((len(contents), 1), 10)
        row = np.concatenate([contents[:, : self.digits], plus, contents[:, self.digits :]], axis=1)
        order = np.argsort(row < 0, axis=1, kind="stable")
        return np.take_along_axis(row, order, axis=1), (row >= 0).sum(axis=1)

    def _answer(self, contents: Ids) -> tuple[Ids, Ids]:
        return self._ordered(_carried(self._columns(contents)))

    def _columns(self, contents: Ids) -> Ids:
        """Sums of the digits of equal worth, the units first: (N, digits)."""
        operands = contents.reshape(-1, 2, self.digits)
        lengths = (operands >= 0).sum(axis=2, keepdims=True)
        places = lengths - 1 - np.arange(self.digits)
        units_first = np.take_along_axis(operands, np.maximum(places, 0), axis=2)
        return np.where(places >= 0, units_first, 0).sum(axis=1)

    def _ordered(self, units_first: NDArray[np.int64]) -> tuple[Ids, Ids]:
        """A number's digits in the order in which it is written, without leading zeros, and how many."""
        width = units_first.shape[1]
        n = np.maximum(width - np.argmax(units_first[:, ::-1] > 0, axis=1), 1)
        n[~(units_first > 0).any(axis=1)] = 1
        if self.backwards:
            return units_first, n
        places = n[:, None] - 1 - np.arange(width)
        return np.take_along_axis(units_first, np.maximum(places, 0), axis=1), n

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Sums without carries, and the longer operand."""
        batch = self.tested(limit)
        halves = [_halves(row, n) for row, n in zip(batch.inputs.tolist(), batch.mask.sum(axis=1), strict=True)]
        longer = [self._tokens(str(max(a, b))) for a, b in halves]
        loose = [self._tokens(_without_carries(a, b)) for a, b in halves]
        return [
            Baseline("larger operand", float(np.mean(_right(longer, batch))), "right where the other is 0"),
            Baseline("no carries", float(np.mean(_right(loose, batch))), "each column's sum modulo 10"),
        ]

    def _tokens(self, number: str) -> list[int]:
        return [int(digit) + 2 for digit in (reversed(number) if self.backwards else number)]


def _carried(columns: Ids) -> Ids:
    """Digits of a number, units first, from its columns' sums: (N, L) -> (N, L + 1)."""
    total = np.pad(columns, ((0, 0), (0, 1)))
    for place in range(columns.shape[1]):
        total[:, place + 1] += total[:, place] // 10
        total[:, place] %= 10
    return total


def _halves(row: list[int], n: int) -> tuple[int, int]:
    """The operands in a row of source tokens."""
    left, right = "".join("0123456789+"[token] for token in row[:n]).split("+")
    return int(left), int(right)


def _without_carries(a: int, b: int) -> str:
    left, right = str(a), str(b)
    width = max(len(left), len(right))
    columns = zip(left.zfill(width), right.zfill(width), strict=True)
    return str(int("".join(str((int(x) + int(y)) % 10) for x, y in columns)))
