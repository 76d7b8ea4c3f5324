"""Tasks of the Chomsky hierarchy: rules that a string obeys, learnt on short strings and asked of longer ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.base import Baseline, Difficulty, Ids, Metric, Split, Task, Totals, difficulty, whole
from tasks.baselines import commonest
from tasks.draws import Draws
from tasks.generated import Generated
from tasks.registry import register
from tasks.splits import drawn
from zoo.types import Batch, Shape

if TYPE_CHECKING:
    from torch import Tensor

SHORTEST = 9
"""Strings shorter than this are so few that all of them are for training."""
HEAD = 16
"""Tokens by which, with the length, a string belongs to a split."""
RAW = 30
"""Numbers drawn lie in [0, 30), so that their remainders modulo 2, 3 and 5 are uniform."""

_DEVIATIONS = (
    "models are causal; the official transformer is an encoder that sees the whole row, read-out tokens included",
    "every example has a length of its own; an official batch has one length, so that the loss of long strings weighs "
    "no more there than that of short ones",
    "an official test has 512 strings of every length; ours draws lengths at random, as many as it has examples",
    "splits share no string: the split of a string of 9 tokens or more follows from its length and its first 16 tokens",
    "the published score is the best of 10 seeds (and learning rates) on the test itself; here every seed is reported, "
    "and what is selected is selected on the valid split",
    "AdamW with a schedule, as every task here; the official code has Adam at a constant rate",
)


def chomsky(level: str, file: str, *deviations: str) -> Callable[[type[FormalLanguage]], type[FormalLanguage]]:
    """Register a task of a level of the hierarchy, with its own deviations before those of all eight."""
    paper = "Delétang et al. 2023, Neural Networks and the Chomsky Hierarchy, arXiv:2207.02098"
    return register(
        paper=f"{paper}, table 1 ({level}) and appendix A.1",
        source=f"https://github.com/google-deepmind/neural_networks_chomsky_hierarchy (tasks/{file})",
        deviations=(*deviations, *_DEVIATIONS),
    )


def _difficulties(steps: float = 1.0) -> dict[str, Difficulty]:
    """The three settings; `steps` is how often a row is longer than a string (2 if an answer is as long as it)."""
    return {
        "smoke": difficulty(
            {"longest_train": 12, "shortest_test": 13, "longest_test": 24},
            50_000,
            tokens=150_000,
            lr=3e-3,
            batch_tokens=int(64 * 12 * steps),
            depth=2,
            heads=2,
        ),
        "small": difficulty(
            {"longest_test": 256},
            50_000,
            tokens=4_000_000 * steps,
            lr=3e-3,
            batch_tokens=int(64 * 41 * steps),
            depth=2,
            heads=2,
        ),
        "paper": difficulty(
            {},
            265_000,
            steps=1_000_000,
            lr=1e-3,
            batch_tokens=int(128 * 41 * steps),
            train={"schedule": "constant"},
            heads=8,
        ),
    }


class FormalLanguage(Generated):
    """What the eight tasks share: drawing strings, reading out an answer, scoring it.

    A row is a string of n symbols and then a read-out of as many placeholder tokens (number `symbols`) as the answer
    has; answers are read at these steps, and nothing else counts. Rows end in padding, which repeats the placeholder.
    inputs, mask, targets (0 where not counted), counted: (B, T).

    Train and tune draw n uniformly from 1 (tune: 9) to `longest_train`, valid and test from `shortest_test` to
    `longest_test`. Valid has the lengths of test, as the paper selects by the score at these, though on the test
    itself; tune says how well the lengths of training have been learnt.

    `accuracy` is the share of right answer tokens of an example, averaged over examples: an estimate of the paper's
    mean over lengths. `exact` is the share of examples of which all answer tokens are right.

    Args:
        longest_train: the longest string of train and tune. shortest_test, longest_test: those of valid and test.
    """

    role = "lm"
    symbols: ClassVar[int]
    """Input tokens, without the placeholder."""
    classes: ClassVar[int]
    """Answer tokens."""
    difficulties = _difficulties()
    also = ("exact",)

    def __init__(self, *, longest_train: int = 40, shortest_test: int = 41, longest_test: int = 500) -> None:
        self.longest_train = whole(self.name, "longest_train", longest_train, SHORTEST)
        self.shortest_test = whole(self.name, "shortest_test", shortest_test, longest_train + 1)
        self.longest_test = whole(self.name, "longest_test", longest_test, shortest_test)
        self.metric = Metric("accuracy", higher_is_better=True, chance=1 / self.classes)
        rows = longest_test + int(self.answer_length(longest_test))
        self.shape = Shape(length=rows, vocab=self.symbols + 1, outputs=self.classes)
        self.train_length = longest_train + int(self.answer_length(longest_train))
        self._keep(longest_train=longest_train, shortest_test=shortest_test, longest_test=longest_test)

    def answer_length(self, lengths: Any) -> Any:
        """Answer tokens of strings of these lengths, of which there may be one or an array."""
        return 0 * lengths + 1

    def possible(self, lengths: Ids) -> Ids:
        """The lengths nearest below that strings can have."""
        return lengths

    def cuts(self, draws: Draws, ids: Ids, lengths: Ids) -> Ids:
        """Where the second part of each string begins, shape (N,); 0 where strings have no parts."""
        return np.zeros_like(lengths)

    def spelt(self, raw: Ids, places: Ids, cuts: Ids) -> Ids:
        """Symbols from uniform numbers below 30, (N, L), at the given places of the strings, (L,)."""
        return raw % self.symbols

    def answers(self, tokens: Ids, lengths: Ids, cuts: Ids) -> Ids:
        """The answers to strings (N, L), 0 behind their ends: shape (N, answer_length(L)), anything behind theirs."""
        raise NotImplementedError

    def heuristics(self, tokens: Ids, lengths: Ids, cuts: Ids) -> list[tuple[str, Ids, str]]:
        """Answers that do not know the rule: name, answers that broadcast to (N, answer_length(L)), about."""
        raise NotImplementedError

    def scored(self, targets: Any, counted: Any) -> Any:
        """Where an answer token is part of the score: NumPy arrays or tensors (B, T)."""
        return counted

    def stretched(self, multiple: int) -> Task:
        raise ValueError(
            f"{self.name} is tested at longer lengths than it is trained at already: set shortest_test and longest_test"
        )

    def strings(self, split: Split, ids: Ids, seed: int) -> tuple[Ids, Ids, Ids]:
        """Strings (N, L), 0 behind their ends; their lengths (N,); where their second parts begin (N,)."""
        (low, high), draws = self._lengths(split), self.draws(split, seed)

        def make(ids: Ids, attempt: int) -> Ids:
            lengths = self.possible(draws("length").integers(ids, 1, low, high + 1)[:, 0])
            cuts = self.cuts(draws("cut"), ids, lengths)
            raw = draws(f"head {attempt}").integers(ids, HEAD, 0, RAW)
            head = self.spelt(raw, np.arange(HEAD), cuts) * (np.arange(HEAD) < lengths[:, None])
            return np.stack([lengths, cuts, head @ self._powers], axis=1)

        rows = make(ids, 0)
        some = rows[:, 0] >= SHORTEST
        rows[some] = drawn(split, ids[some], make, what=self.name)
        lengths, cuts, packed = rows.T
        head = packed[:, None] // self._powers % self.symbols
        places = np.arange(HEAD, max(high, HEAD))
        tail = self.spelt(draws("tail").integers(ids, len(places), 0, RAW), places, cuts)
        tokens = np.concatenate([head, tail], axis=1)[:, :high]
        return tokens * (np.arange(high) < lengths[:, None]), lengths, cuts

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        tokens, lengths, cuts = self.strings(split, ids, seed)
        longest, ends = tokens.shape[1], lengths + self.answer_length(lengths)
        steps = np.arange(longest + self.answer_length(longest))
        inputs = np.full((len(ids), len(steps)), self.symbols, dtype=np.int64)
        inputs[:, :longest] = np.where(steps[:longest] < lengths[:, None], tokens, self.symbols)
        mask = steps < ends[:, None]
        counted = mask & (steps >= lengths[:, None])
        targets = np.zeros_like(inputs)
        targets[counted] = self._flat(self.answers(tokens, lengths, cuts), lengths)
        return Batch(inputs=inputs, targets=targets, mask=mask, counted=counted)

    def totals(self, logits: Tensor, batch: Batch) -> Totals:
        """The loss per counted token; `accuracy` and `exact` per example."""
        scored = self.scored(batch.targets, batch.counted)
        right = ((logits.argmax(-1) == batch.targets) & scored).sum(-1).double() / scored.sum(-1)
        examples = float(len(batch))
        return {
            "loss": super().totals(logits, batch)["loss"],
            "accuracy": (float(right.sum()), examples),
            "exact": (float((right == 1).sum()), examples),
        }

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """The commonest answer token, and answers that do not know the rule."""
        ids = self.evaluation_ids("test", limit)
        strings, test, seen = self.strings("test", ids, 0), self.tested(limit), self.tuned()
        scored = self.scored(test.targets, test.counted)
        common = commonest(seen.targets[self.scored(seen.targets, seen.counted)])
        guesses = [("constant", np.array([[common]]), "the tune split's commonest answer token at every step")]
        found = []
        for name, guess, about in guesses + self.heuristics(*strings):
            answers = np.zeros_like(test.targets)
            full = np.broadcast_to(guess, (len(ids), int(self.answer_length(self.longest_test))))
            answers[test.counted] = self._flat(full, strings[1])
            right = ((answers == test.targets) & scored).sum(axis=1) / scored.sum(axis=1)
            found.append(Baseline(name, float(right.mean()), about))
        return found

    @property
    def _powers(self) -> Ids:
        return self.symbols ** np.arange(HEAD, dtype=np.int64)

    def _lengths(self, split: Split) -> tuple[int, int]:
        if split in ("valid", "test"):
            return self.shortest_test, self.longest_test
        return SHORTEST if split == "tune" else 1, self.longest_train

    def _flat(self, answers: Ids, lengths: Ids) -> Ids:
        """The answer tokens of all strings, one string after another."""
        return answers[np.arange(answers.shape[1]) < self.answer_length(lengths)[:, None]]


def _last(tokens: Ids, lengths: Ids) -> Ids:
    return np.take_along_axis(tokens, lengths[:, None] - 1, axis=1)


@chomsky("regular", "regular/parity_check.py")
class Parity(FormalLanguage):
    """Whether a binary string has an odd number of ones: 1 if so, 0 if not."""

    symbols, classes = 2, 2

    def answers(self, tokens: Ids, lengths: Ids, cuts: Ids) -> Ids:
        return tokens.sum(axis=1, keepdims=True) % 2

    def heuristics(self, tokens: Ids, lengths: Ids, cuts: Ids) -> list[tuple[str, Ids, str]]:
        return [("last token", _last(tokens, lengths), "the string's last token")]


@chomsky("regular", "regular/even_pairs.py")
class EvenPairs(FormalLanguage):
    """Whether the pairs 01 and 10 in a binary string are odd in number together: 1 if so, 0 if not.

    That is so where the first and the last token differ.
    """

    symbols, classes = 2, 2

    def answers(self, tokens: Ids, lengths: Ids, cuts: Ids) -> Ids:
        return tokens[:, :1] ^ _last(tokens, lengths)

    def heuristics(self, tokens: Ids, lengths: Ids, cuts: Ids) -> list[tuple[str, Ids, str]]:
        last, before = _last(tokens, lengths), _last(tokens, np.maximum(lengths - 1, 1))
        return [
            ("last token", last, "the string's last token"),
            ("last pair", last ^ before, "whether the last two tokens differ"),
        ]


@chomsky("regular", "regular/cycle_navigation.py")
class CycleNavigation(FormalLanguage):
    """Where a walk on a cycle of 5 places ends: 0, 1, 2 are a step back, none, a step ahead, from place 0."""

    symbols, classes = 3, 5

    def answers(self, tokens: Ids, lengths: Ids, cuts: Ids) -> Ids:
        return ((tokens.sum(axis=1) - lengths) % 5)[:, None]

    def heuristics(self, tokens: Ids, lengths: Ids, cuts: Ids) -> list[tuple[str, Ids, str]]:
        return [("last step", (_last(tokens, lengths) - 1) % 5, "where the last step leads from place 0")]


@chomsky("regular", "regular/modular_arithmetic.py")
class ModularArithmetic(FormalLanguage):
    """The value modulo 5 of numbers joined by +, − and ×, which binds first; without brackets.

    Tokens 0 to 4 are numbers, 5, 6, 7 are +, −, ×; token 8, the official code's blank, never occurs. Strings are of
    odd length: a length that is drawn even is one shorter, as in the official code.
    """

    symbols, classes = 9, 5

    def possible(self, lengths: Ids) -> Ids:
        """The odd length at or below."""
        return lengths - (lengths % 2 == 0)

    def spelt(self, raw: Ids, places: Ids, cuts: Ids) -> Ids:
        return np.where(places % 2 == 0, raw % 5, 5 + raw % 3)

    def answers(self, tokens: Ids, lengths: Ids, cuts: Ids) -> Ids:
        """Products first, then sums, from left to right: `total` is of the terms before the one being multiplied."""
        total, term = np.zeros_like(lengths), tokens[:, 0].copy()
        for place in range(1, tokens.shape[1] - 1, 2):
            operator, number, inside = tokens[:, place], tokens[:, place + 1], place < lengths
            product = operator == 7
            total = np.where(inside & ~product, total + term, total) % 5
            signed = np.where(product, term * number, np.where(operator == 6, -number, number))
            term = np.where(inside, signed, term) % 5
        return ((total + term) % 5)[:, None]

    def heuristics(self, tokens: Ids, lengths: Ids, cuts: Ids) -> list[tuple[str, Ids, str]]:
        last = _last(tokens, lengths)
        before, operator = (_last(tokens, np.maximum(lengths - back, 1)) for back in (2, 1))
        value = np.where(operator == 7, before * last, before + np.where(operator == 6, -last, last)) % 5
        return [
            ("last number", last, "the string's last number"),
            ("last operation", value, "the string's last three tokens"),
        ]


class _Strings(FormalLanguage):
    """Binary strings that an answer rearranges."""

    symbols, classes = 2, 2
    difficulties = _difficulties(2.0)

    def answer_length(self, lengths: Any) -> Any:
        return lengths

    def order(self, places: Ids, lengths: Ids) -> Ids:
        """From which place of its string, of length (N, 1), each answer token (U,) comes: shape (N, U)."""
        raise NotImplementedError

    def answers(self, tokens: Ids, lengths: Ids, cuts: Ids) -> Ids:
        """The string's tokens in another order."""
        places = np.arange(int(self.answer_length(tokens.shape[1])))
        source = self.order(places, lengths[:, None])
        return np.take_along_axis(tokens, np.clip(source, 0, tokens.shape[1] - 1), axis=1)

    def heuristics(self, tokens: Ids, lengths: Ids, cuts: Ids) -> list[tuple[str, Ids, str]]:
        return [
            ("first token", tokens[:, :1], "the string's first token at every step"),
            ("last token", _last(tokens, lengths), "the string's last token at every step"),
        ]


@chomsky("deterministic context-free", "dcf/reverse_string.py")
class ReverseString(_Strings):
    """A binary string backwards."""

    def order(self, places: Ids, lengths: Ids) -> Ids:
        return lengths - 1 - places


@chomsky("context-sensitive", "cs/duplicate_string.py")
class DuplicateString(_Strings):
    """A binary string twice."""

    difficulties = _difficulties(3.0)

    def answer_length(self, lengths: Any) -> Any:
        return 2 * lengths

    def order(self, places: Ids, lengths: Ids) -> Ids:
        return places % lengths


@chomsky(
    "context-sensitive",
    "cs/odds_first.py",
    "the tokens at indices 1, 3, 5, …, counted from 0, come first, as in the official code; its text says s₁ s₃ …",
)
class OddsFirst(_Strings):
    """The tokens of a binary string at odd indices, counted from 0, and then those at even ones."""

    def order(self, places: Ids, lengths: Ids) -> Ids:
        """1, 3, 5, … and 0, 2, 4, …: the former are ⌊n/2⌋."""
        odd = lengths // 2
        return np.where(places < odd, 2 * places + 1, 2 * (places - odd))


@chomsky(
    "deterministic context-free",
    "dcf/stack_manipulation.py",
    "the share of right tokens is averaged over the strings of a length; the official code pools their tokens",
)
class StackManipulation(FormalLanguage):
    """A stack, bottom first, and then what is done to it; the answer is the stack that is left, top first.

    Tokens 0 and 1 are the stack's, 2 is to pop (nothing where the stack is empty), 3 and 4 are to push 0 and 1. The
    stack has a length drawn from 1 to n − 1 (1 if n = 1). The answer ends in token 2, and zeros fill it up to n + 1;
    the loss counts them all, the scores count tokens up to the end token.
    """

    symbols, classes = 5, 3
    difficulties = _difficulties(2.0)

    def answer_length(self, lengths: Any) -> Any:
        return lengths + 1

    def cuts(self, draws: Draws, ids: Ids, lengths: Ids) -> Ids:
        """How many of a string's tokens are the stack."""
        return 1 + (draws.uniform(ids, 1)[:, 0] * (lengths - 1)).astype(np.int64)

    def spelt(self, raw: Ids, places: Ids, cuts: Ids) -> Ids:
        return np.where(places < cuts[:, None], raw % 2, 2 + raw % 3)

    def answers(self, tokens: Ids, lengths: Ids, cuts: Ids) -> Ids:
        """What is done is done to all strings at once, from left to right."""
        stack, height = np.zeros_like(tokens), np.zeros_like(lengths)
        for place, token in enumerate(tokens.T):
            inside, pops = place < lengths, token == 2
            pushed = np.flatnonzero(inside & ~pops)
            stack[pushed, height[pushed]] = np.where(token < 2, token, token - 3)[pushed]
            height = np.where(inside, np.where(pops, np.maximum(height - 1, 0), height + 1), height)
        return self._read(stack, height)

    def _read(self, stack: Ids, height: Ids) -> Ids:
        """Stacks (N, L) of heights (N,), top first, with an end token and zeros behind: (N, L + 1)."""
        places, height = np.arange(stack.shape[1] + 1), height[:, None]
        read = np.take_along_axis(stack, np.maximum(height - 1 - places, 0), axis=1)
        return np.where(places < height, read, 2 * (places == height))

    def heuristics(self, tokens: Ids, lengths: Ids, cuts: Ids) -> list[tuple[str, Ids, str]]:
        return [("untouched", self._read(tokens, cuts), "the stack before anything is done to it")]

    def scored(self, targets: Any, counted: Any) -> Any:
        ends = counted & (targets == 2)
        return counted & (ends.cumsum(-1) <= ends)
