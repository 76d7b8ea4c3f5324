"""Grapheme to phoneme: how an English word is pronounced."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from tasks import DataError, corpora
from tasks.base import SPLITS, Baseline, Decoding, Ids, Metric, Split, Task, Totals, difficulty, fingerprint, whole
from tasks.registry import register
from tasks.seq2seq.written import FIRST, START, STOP, PairTable, at_home, neighbour, packed, sources
from zoo.types import Batch, Shape

Phones = tuple[str, ...]
LETTERS = "'abcdefghijklmnopqrstuvwxyz"
LONGEST_WORD, LONGEST_ANSWER = 20, 19
"""In letters, and in phonemes: the most that any word of so many letters has."""
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()
COUNTS: dict[bool, dict[Split, int]] = {
    False: {"train": 107_146, "tune": 5_012, "valid": 7_369, "test": 12_361},
    True: {"train": 107_390, "tune": 5_012, "valid": 7_369, "test": 12_361},
}
"""Examples per split, by `stress`: pronunciations in training, words elsewhere."""


@register(
    paper="Yao and Zweig 2015, Sequence-to-Sequence Neural Net Models for Grapheme-to-Phoneme Conversion, "
    "arXiv:1506.00196, section 4",
    source="https://github.com/cmusphinx/g2p-seq2seq; the dictionary: https://github.com/cmusphinx/cmudict "
    "(BSD-2-Clause)",
    deviations=(
        "today's cmudict, split by the content of the word, where papers share a split of an older one (PronaSyl 2007: "
        "106,837 words for training, 12,000 for the test)",
        "words of letters and apostrophes only, at most 20 of them",
    ),
)
class G2p(Task):
    """Spell out the phonemes of an English word (CMUdict).

    Sources are the letters a–z and the apostrophe, answers the 39 phonemes of ARPAbet, without stress unless asked for
    (the papers strip it). Of the dictionary's 126,052 words, 1,126 with hyphens or dots are left out, and 2 of more
    than 20 letters: 124,924 stay. A word's pronunciations stay together in the split that the word's hash gives. In
    training each of them is an example; elsewhere a word is one example, and the first of them its target.

    What a model writes is scored against the nearest of the word's pronunciations, in edit distance (of equals, the
    first): the phoneme error rate `per` is the sum of distances divided by the sum of those references' lengths, the
    word error rate `wer` the share of words that match none. Chance is an empty answer.

    inputs, mask: (B, 20), letters as 0–26, the apostrophe first. decoder_inputs, targets, counted: (B, 20).

    Args:
        stress: keep the stress of vowels, 0, 1 or 2: 69 phonemes. beam: hypotheses kept while an answer is written.
    """

    role = "seq2seq"
    also = ("wer",)
    metric = Metric("per", higher_is_better=False, chance=1.0)
    difficulties: ClassVar = {
        "smoke": difficulty({}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=2048, depth=2),
        "small": difficulty({}, 300_000, tokens=4_000_000, lr=3e-3, batch_tokens=2048, depth=2),
        "paper": difficulty({"beam": 4}, 8_000_000, tokens=60_000_000, lr=1e-3, batch_tokens=4096, depth=2),
    }

    def __init__(self, *, stress: bool = False, beam: int = 1) -> None:
        self.stress, beam = bool(stress), whole("g2p", "beam", beam)
        vowels = [f"{vowel}{mark}" for vowel in VOWELS for mark in "012"] if stress else VOWELS
        self.phonemes = {phoneme: index for index, phoneme in enumerate(sorted([*CONSONANTS, *vowels]))}
        outputs, longest = len(self.phonemes) + FIRST, LONGEST_ANSWER + 1
        self.shape = Shape(length=LONGEST_WORD, vocab=len(LETTERS), outputs=outputs, target_length=longest)
        self.decoding = Decoding(START, STOP, longest, beam)
        # The beam changes no example, but what is scored.
        self.fingerprint = fingerprint("g2p", 1, content=_card().sha256, stress=self.stress, beam=beam)

    def count(self, split: Split) -> int:
        return COUNTS[self.stress][split]

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        return _table(self.stress).examples(split, ids)

    def decoded(self, answers: Sequence[Sequence[int]], batch: Batch) -> Totals:
        """`per` and `wer`; see the class."""
        words = ["".join(LETTERS[letter] for letter in row) for row in sources(batch.inputs, batch.mask)]
        return self._errors(zip(words, answers, strict=True))

    def _errors(self, written: Iterable[tuple[str, Sequence[int]]]) -> Totals:
        distance, length, wrong, words = 0, 0, 0, 0
        for word, answer in written:
            references = [self._tokens(phones) for phones in _pronunciations(self.stress)[word]]
            nearest, size = min(((levenshtein(answer, r), len(r)) for r in references), key=lambda pair: pair[0])
            distance, length, wrong, words = distance + nearest, length + size, wrong + (nearest > 0), words + 1
        return {"per": (float(distance), float(length)), "wer": (float(wrong), float(words))}

    def _tokens(self, phones: Phones) -> list[int]:
        return [self.phonemes[phone] + FIRST for phone in phones]

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Rules read off the training words."""
        known = _pronunciations(self.stress)
        words = list(known)
        table = _table(self.stress)
        train = sorted({words[i] for i in table.word_of[table.rows["train"]].tolist()})
        test = [words[i] for i in table.word_of[table.rows["test"][self.evaluation_ids("test", limit)]].tolist()]
        aligned = [(word, known[word][0]) for word in train if len(word) == len(known[word][0])]

        def rate(write: Callable[[str], Iterable[str]]) -> float:
            return self.scores(self._errors((word, self._tokens(tuple(write(word)))) for word in test))["per"]

        rules = [_rule(aligned, reach) for reach in (0, 1)]
        alone = rate(lambda word: _by(rules[:1], word))
        in_context = rate(lambda word: _by(rules[::-1], word))
        nearest = rate(lambda word: known[train[neighbour(train, word)]][0])
        how = "counted on training words with as many phonemes as letters"
        given = "given the letters on either side where they were seen"
        return [
            Baseline("letters", alone, f"each letter's commonest phoneme, {how}"),
            Baseline("letters in context", in_context, f"as `letters`, {given}, {how}"),
            Baseline("neighbour", nearest, "the pronunciation of the training word that begins most like it"),
        ]


def levenshtein(a: Sequence[object], b: Sequence[object]) -> int:
    """The fewest insertions, deletions and substitutions that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@dataclass(frozen=True, slots=True)
class _Table(PairTable):
    """Every pronunciation, and the number of its word."""

    word_of: Ids


def _card() -> corpora.Card:
    return corpora.get("cmudict")


@lru_cache(maxsize=2)
def _pronunciations(stress: bool) -> dict[str, tuple[Phones, ...]]:
    """The words that stay, in the dictionary's order, each with its different pronunciations."""
    found: dict[str, dict[Phones, None]] = defaultdict(dict)
    marks, letters = str.maketrans("", "", "" if stress else "012"), frozenset(LETTERS)
    for line in corpora.load(_card()).decode("utf-8").splitlines():
        entry, _, phones = line.partition("#")[0].partition(" ")
        word = entry.partition("(")[0]  # a second pronunciation is that of `word(2)`
        if len(word) <= LONGEST_WORD and letters.issuperset(word):
            found[word][tuple(phones.translate(marks).split())] = None
    return {word: tuple(different) for word, different in found.items()}


@lru_cache(maxsize=2)
def _table(stress: bool) -> _Table:
    known = _pronunciations(stress)
    phonemes = G2p(stress=stress).phonemes
    pairs = [(i, word, phones) for i, (word, several) in enumerate(known.items()) for phones in several]
    word_of = np.array([i for i, _, _ in pairs])
    number = {letter: index for index, letter in enumerate(LETTERS)}
    letters, letters_of = packed([[number[letter] for letter in word] for _, word, _ in pairs], LONGEST_WORD)
    answers, answers_of = packed([[phonemes[p] for p in phones] for _, _, phones in pairs], LONGEST_ANSWER)
    first = np.diff(word_of, prepend=-1) > 0
    valid = np.arange(LONGEST_WORD) < letters_of[:, None]
    homes = at_home(np.where(valid, letters + 1, 0))
    rows = {split: homes[split] if split == "train" else homes[split][first[homes[split]]] for split in SPLITS}
    counted = {split: len(rows[split]) for split in SPLITS}
    if counted != COUNTS[stress]:
        raise DataError(f"cmudict has {counted} examples where {COUNTS[stress]} were counted")
    return _Table(letters, letters_of, answers, answers_of, rows, word_of)


def _contexts(word: str, reach: int) -> list[str]:
    """Each letter with `reach` letters on either side."""
    padded = "-" * reach + word + "-" * reach
    return [padded[i : i + 2 * reach + 1] for i in range(len(word))]


def _rule(aligned: Iterable[tuple[str, Phones]], reach: int) -> dict[str, str]:
    """The commonest phoneme of each letter in its context."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for word, phones in aligned:
        for context, phone in zip(_contexts(word, reach), phones, strict=True):
            seen[context][phone] += 1
    return {context: counter.most_common(1)[0][0] for context, counter in seen.items()}


def _by(rules: Sequence[dict[str, str]], word: str) -> list[str]:
    """A phoneme per letter, from the first of the rules that knows the letter in its context."""
    places = zip(*(_contexts(word, len(next(iter(rule))) // 2) for rule in rules), strict=True)
    found = (next((r[c] for r, c in zip(rules, contexts, strict=True) if c in r), None) for contexts in places)
    return [phone for phone in found if phone is not None]
