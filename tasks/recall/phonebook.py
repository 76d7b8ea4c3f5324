"""A phone book: names and numbers of several tokens each, then numbers asked for by name."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tasks.base import Baseline, Ids, Split, Task, Totals, difficulty, whole
from tasks.recall.common import Recall, Tokens
from tasks.registry import register
from zoo.types import Batch

if TYPE_CHECKING:
    from torch import Tensor

LETTERS, DIGITS = 26, 10
COLON, END, ASK = range(LETTERS + DIGITS, LETTERS + DIGITS + 3)


@register(
    paper="Jelassi et al. 2024, Repeat After Me: Transformers are Better than State Space Models at Copying, "
    "arXiv:2402.01032, section 4.3",
    source="https://github.com/sjelassi/transformers_ssm_copy (phone-book lookup)",
    deviations=(
        "models are trained on it from scratch, where the paper asks pretrained ones in English, with two examples",
        "names are random letters, each as likely, where the paper's are first names and surnames",
        "several entries are asked for, one after another; the paper asks for one",
        "the score is the share of digits that are right, given those before; the paper's is `exact`, the share of "
        "whole numbers",
    ),
)
class Phonebook(Recall):
    """Look numbers up by name: abc:123; def:456; … ?def:456.

    A book of `entries` lines (letters, a colon, digits, an end), then `questions` about different ones of them, in any
    order: a question mark, the letters, a colon and the digits. Each of these digits is a target, given what precedes
    it, and nothing else counts. Names in a book differ; letters and digits are drawn uniformly.

    A book of n entries holds n · digits · log₂ 10 bits that a model must carry to its questions, so what it recalls of
    long books shows the size of its state. With `extrapolate` books of several times as many entries are asked.

    inputs, targets, counted: (B, T), T = (entries + questions) · (letters + digits + 2) − 1. Examples of
    different splits are drawn under different keys; there are too many books for two to be equal.

    Args:
        entries: in a book. letters: of a name. digits: of a number. questions: per book.
    """

    also = ("exact",)
    difficulties: ClassVar = {
        "smoke": difficulty(
            {"entries": 4, "questions": 2, "digits": 2}, 50_000, tokens=200_000, lr=3e-3, batch_tokens=1024, depth=2
        ),
        "small": difficulty({"entries": 16}, 100_000, tokens=5_000_000, lr=3e-3, batch_tokens=4096, depth=2, heads=2),
        "paper": difficulty(
            {"entries": 70, "digits": 7, "letters": 8, "questions": 1},
            160_000_000,
            tokens=10_000_000_000,
            lr=1e-4,
            batch_tokens=2**17,
        ),
    }

    def __init__(self, *, entries: int = 16, letters: int = 2, digits: int = 3, questions: int = 4) -> None:
        self.entries, self.questions = (
            whole("phonebook", "entries", entries),
            whole("phonebook", "questions", questions),
        )
        self.letters, self.digits = whole("phonebook", "letters", letters), whole("phonebook", "digits", digits)
        if questions > entries:
            raise ValueError(f"phonebook: {questions} questions about {entries} entries; ask for {entries} at most")
        if entries > LETTERS**letters // 2:
            raise ValueError(f"phonebook: {entries} entries need names of more than {letters} letters (letters)")
        self.line = letters + digits + 2
        self.length = (entries + questions) * self.line - 1
        self._set(
            range(LETTERS, LETTERS + DIGITS),
            vocab=ASK + 1,
            steps=self.length,
            entries=entries,
            letters=letters,
            digits=digits,
            questions=questions,
        )

    def stretched(self, multiple: int) -> Task:
        """Books of so many times the entries; questions stay as many."""
        return self._with(entries=multiple * self.entries)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        draws, N, L = self.draws(split, seed), self.entries, self.letters
        order = draws("names").sample(ids, LETTERS**L, N)
        names = order[..., None] // LETTERS ** np.arange(L) % LETTERS
        numbers = LETTERS + draws("numbers").integers(ids, N * self.digits, 0, DIGITS).reshape(-1, N, self.digits)
        asked = draws("questions").sample(ids, N, self.questions)[..., None]
        book = _lines([names, COLON, numbers, END])
        asks = _lines(
            [ASK, np.take_along_axis(names, asked, axis=1), COLON, np.take_along_axis(numbers, asked, axis=1)]
        )
        line = np.concatenate([book.reshape(len(ids), -1), asks.reshape(len(ids), -1)], axis=1)
        counted = np.zeros(line.shape, dtype=bool)
        counted[:, N * self.line :].reshape(len(ids), self.questions, -1)[..., -self.digits :] = True
        return Batch(inputs=line[:, :-1], targets=np.where(counted, line, 0)[:, 1:], counted=counted[:, 1:])

    def totals(self, logits: "Tensor", batch: Batch) -> Totals:
        """The loss and `accuracy` per digit, `exact` per question."""
        right = (logits.argmax(-1) == batch.targets) | ~batch.counted
        questions = slice(self.entries * self.line - 1, None)  # a target stands one step before its token
        right, asked = (x[:, questions].unflatten(1, (self.questions, -1)) for x in (right, batch.counted))
        asked = asked.any(-1)
        return {**super().totals(logits, batch), "exact": (float((right.all(-1) & asked).sum()), float(asked.sum()))}

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Guesses that do not look at the name."""
        test = self.tested(limit)
        answers = test.targets[test.counted].reshape(len(test.targets), -1, self.digits)
        book = test.inputs[:, : self.entries * self.line].reshape(len(answers), self.entries, self.line)
        last = book[:, -1:, self.letters + 1 : -1]
        return [self.constant(test), Baseline("last", float((last == answers).mean()), "the number of the last entry")]


def _lines(parts: list[Tokens | int]) -> Tokens:
    """(B, n, …) lines of these parts side by side, a number standing for one token of that kind."""
    like = next(part for part in parts if not isinstance(part, int))[..., :1]
    return np.concatenate([np.full_like(like, part) if isinstance(part, int) else part for part in parts], axis=2)
