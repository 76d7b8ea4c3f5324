"""Pairs of strings, such as sentences and their translations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from tasks import DataError
from tasks.base import SPLITS, Baseline, Decoding, Ids, Metric, Split, Task, Totals, difficulty, fingerprint, whole
from tasks.corpora import tabular
from tasks.corpora.tabular import Column, Table
from tasks.draws import Draws
from tasks.registry import register
from tasks.seq2seq.written import FIRST, START, STOP, PairTable, answers, at_home, neighbour, packed, sources
from zoo.types import Batch, Shape

Tokens: TypeAlias = Literal["characters", "bytes"]
Pair: TypeAlias = "tuple[str, str]"
MONTHS = "January February March April May June July August September October November December".split()
BLEU_SUMS = (
    *(f"bleu right {n}" for n in range(1, 5)),
    *(f"bleu all {n}" for n in range(1, 5)),
    "bleu own",
    "bleu reference",
)
"""Names of the sums that BLEU is made of: n-grams that the reference has, all n-grams, words of both sides."""
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


@register(
    about="Translate strings: the pairs of a file, or dates into ISO 8601.",
    deviations=("chrF is the mean of sacrebleu's scores of single sentences, BLEU that of the whole corpus",),
)
class Pairs(Task):
    """Write the second string of a pair from the first: translation, transliteration, normalisation.

    A table has a pair a row: CSV, TSV, JSON Lines or Parquet, with columns source and target, or without a header (for
    the rule see `tasks.corpora.tabular.read`).
    Identical pairs count once, and pairs with more than `longest` tokens on either side are left out (`dropped` says
    how many). All pairs with one source are in the split that the source's hash gives. Without a file, the pairs are
    the 36,525 days of 1950 to 2049, each in one of seven English notations, and as YYYY-MM-DD.

    Tokens are the characters that occur on a side, in order of their code points, or the bytes of UTF-8.
    Written answers are scored as text, by sacrebleu: `chrf` (chrF2, Popović 2015), the mean over sentences, and `bleu`
    (Papineni et al. 2002; tokens as in 13a, smoothed), that of all sentences together, both from 0 to 100; and `exact`,
    the share of answers that are right. Chance is an empty answer.

    inputs, mask: (B, S), the longest source there is. decoder_inputs, targets, counted: (B, U), the longest target
    and a stop token.

    Args:
        path: a file of pairs, or hub: owner/name, a data set of the Hugging Face hub, of which `split` is read; neither
        for dates. source, target: names of the columns, where they differ from these, or their places from 1.
        tokens: `characters` or `bytes`. longest: see above. beam: hypotheses kept while an answer is written.

    Raises:
        DataError: the table is absent, empty or not UTF-8, lacks a column or a cell, or is too small to be split.
    """

    role = "seq2seq"
    also = ("bleu", "exact")
    metric = Metric("chrf", higher_is_better=True, chance=0.0)
    difficulties: ClassVar = {
        "smoke": difficulty({}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=2048, depth=2),
        "small": difficulty({}, 200_000, tokens=2_000_000, lr=3e-3, batch_tokens=2048, depth=2),
        "paper": difficulty(
            {"longest": 256, "beam": 4}, 40_000_000, tokens=1_000_000_000, lr=7e-4, batch_tokens=25_000, depth=6
        ),
    }

    def __init__(
        self,
        *,
        path: str | None = None,
        hub: str | None = None,
        split: str = "train",
        source: str | int | None = None,
        target: str | int | None = None,
        tokens: Tokens = "characters",
        longest: int = 128,
        beam: int = 1,
    ) -> None:
        if tokens not in get_args(Tokens):
            raise ValueError(f"pairs: tokens must be one of {', '.join(get_args(Tokens))}, got {tokens!r}")
        self.tokens, self.longest = tokens, whole("pairs", "longest", longest)
        columns = Column("source", source), Column("target", target)
        self._own = tabular.read("pairs", *columns, path=path, hub=hub, split=split)
        whole("pairs", "beam", beam)
        table = self._table
        self.dropped = table.dropped
        for part in SPLITS:
            if not len(table.rows[part]):
                raise DataError(
                    f"pairs: {path or hub or 'dates'} has {len(table.inputs)} pairs of at most {longest} {tokens} "
                    f"({table.dropped} longer ones left out), none of them in split {part!r}: more pairs are needed"
                )
        steps, answer = table.inputs.shape[1], table.targets.shape[1] + 1
        vocab, outputs = len(table.source_symbols), len(table.target_symbols) + FIRST
        self.shape = Shape(length=steps, vocab=vocab, outputs=outputs, target_length=answer)
        self.decoding = Decoding(START, STOP, answer, beam)
        content = self._own.content if self._own else "dates"
        # The beam changes no example, but what is scored.
        self.fingerprint = fingerprint("pairs", 1, content=content, tokens=tokens, longest=longest, beam=beam)

    @property
    def _table(self) -> _Table:
        return _table(self._own, self.tokens, self.longest)

    def count(self, split: Split) -> int:
        return len(self._table.rows[split])

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        return self._table.examples(split, ids)

    def decoded(self, answers: Sequence[Sequence[int]], batch: Batch) -> Totals:
        """`chrf` and `exact`, and what `scores` makes `bleu` of."""
        return _compared([self._text(answer) for answer in answers], self._references(batch))

    def scores(self, totals: Totals) -> dict[str, float]:
        """`Task.scores`, and `bleu` from the n-grams of all sentences."""
        counted = {name: value for name, (value, _) in totals.items() if name in BLEU_SUMS}
        found = super().scores({name: both for name, both in totals.items() if name not in BLEU_SUMS})
        return {**found, "bleu": _bleu(counted)} if counted else found

    def _references(self, batch: Batch) -> list[str]:
        return [self._text(row) for row in answers(batch.targets)]

    def _text(self, answer: Sequence[int]) -> str:
        """What target tokens stand for; the start token, which a model may write too, for U+FFFD."""
        return _joined([token - FIRST for token in answer], self._table.target_symbols, self.tokens)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """The source itself, and answers of the training pairs."""
        table = self._table
        test = self.examples("test", self.evaluation_ids("test", limit), 0)
        given = [_joined(row, table.source_symbols, self.tokens) for row in sources(test.inputs, test.mask)]
        known = dict(table.pairs[row] for row in table.rows["train"].tolist())
        ordered = sorted(known)
        commonest = Counter(known.values()).most_common(1)[0][0]

        def score(write: Callable[[str], str]) -> float:
            return self.scores(_compared([write(source) for source in given], self._references(test)))["chrf"]

        nearest = score(lambda source: known[ordered[neighbour(ordered, source)]])
        return [
            Baseline("copy", score(lambda source: source), "the source as it stands"),
            Baseline("constant", score(lambda source: commonest), "the commonest target of training"),
            Baseline("neighbour", nearest, "the target of the training source that begins most like it"),
        ]


@dataclass(frozen=True, slots=True)
class _Table(PairTable):
    """Every pair, the symbols of either side, and how many pairs were too long."""

    pairs: list[Pair]
    source_symbols: Sequence[int]
    """The code point or byte of each token."""
    target_symbols: Sequence[int]
    dropped: int


@lru_cache(maxsize=4)
def _table(own: Table | None, tokens: Tokens, longest: int) -> _Table:
    every = list(dict.fromkeys(_dates() if own is None else ((source, target) for source, target in own.rows)))
    pairs = [pair for pair in every if max(len(_split_up(text, tokens)) for text in pair) <= longest]
    left, right = ([_split_up(pair[side], tokens) for pair in pairs] for side in range(2))
    source_symbols, inputs, inputs_of = _numbered(left, tokens)
    target_symbols, targets, targets_of = _numbered(right, tokens)
    contents = packed([[1 + symbol for symbol in row] for row in left], inputs.shape[1])[0]
    rows, dropped = at_home(contents), len(every) - len(pairs)
    return _Table(inputs, inputs_of, targets, targets_of, rows, pairs, source_symbols, target_symbols, dropped)


def _split_up(text: str, tokens: Tokens) -> Sequence[int]:
    return text.encode() if tokens == "bytes" else [ord(character) for character in text]


def _numbered(rows: Sequence[Sequence[int]], tokens: Tokens) -> tuple[Sequence[int], NDArray[np.int32], Ids]:
    """The symbols of all rows, and the rows as token numbers (N, L), with their lengths (N,)."""
    symbols = range(256) if tokens == "bytes" else sorted({symbol for row in rows for symbol in row})
    number = {symbol: index for index, symbol in enumerate(symbols)}
    return symbols, *packed([[number[symbol] for symbol in row] for row in rows], max(map(len, rows), default=1))


def _joined(row: Iterable[int], symbols: Sequence[int], tokens: Tokens) -> str:
    """The text of token numbers; a number below 0 gives U+FFFD, as bytes that are not UTF-8 do."""
    if tokens == "bytes":
        return bytes(symbols[token] if token >= 0 else 255 for token in row).decode("utf-8", errors="replace")
    return "".join(chr(symbols[token]) if token >= 0 else "\ufffd" for token in row)


def _bleu(counted: Mapping[str, float]) -> float:
    """BLEU of a corpus, from the sums under the names of `BLEU_SUMS`."""
    from sacrebleu.metrics import bleu

    *counts, own, reference = (int(counted[name]) for name in BLEU_SUMS)
    # With `effective_order`, sentences of fewer than four words can score too.
    made = bleu.BLEU.compute_bleu(counts[:4], counts[4:], own, reference, smooth_method="exp", effective_order=True)
    return float(made.score)


def _compared(written: Sequence[str], references: Sequence[str]) -> Totals:
    """Sums of the sentences' scores, and of the counts that BLEU is made of."""
    try:
        from sacrebleu import sentence_bleu, sentence_chrf
    except ImportError as error:
        raise DataError("pairs: answers are scored by sacrebleu: pip install 'zoobench[data]'") from error
    both = list(zip(written, references, strict=True))
    chrf = sum(sentence_chrf(own, [reference]).score for own, reference in both)
    exact = sum(own == reference for own, reference in both)
    counts = np.zeros(len(BLEU_SUMS))
    for own, reference in both:
        bleu = sentence_bleu(own, [reference])
        counts += [*bleu.counts, *bleu.totals, bleu.sys_len, bleu.ref_len]
    n = float(len(both))
    return {
        "chrf": (float(chrf), n),
        "exact": (float(exact), n),
        **{name: (value, n) for name, value in zip(BLEU_SUMS, counts.tolist(), strict=True)},
    }


def _dates() -> list[Pair]:
    """Days in English notations, and in ISO 8601."""
    first = date(1950, 1, 1)
    days = [first + timedelta(days=n) for n in range((date(2050, 1, 1) - first).days)]
    notation = Draws("pairs", "notation").integers(np.arange(len(days)), 1, 0, 7)[:, 0]
    return [(_noted(day, number), day.isoformat()) for day, number in zip(days, notation.tolist(), strict=True)]


def _noted(day: date, notation: int) -> str:
    month, weekday = MONTHS[day.month - 1], DAYS[day.weekday()]
    return (
        f"{day.day} {month} {day.year}",
        f"{month} {day.day}, {day.year}",
        f"{weekday}, {day.day} {month} {day.year}",
        f"{weekday}, {month} {day.day}, {day.year}",
        f"{day.day} {month[:3]} {day.year}",
        f"{weekday[:3]} {month[:3]} {day.day} {day.year}",
        f"{day.day}.{day.month}.{day.year}",
    )[notation]
