"""CMUdict: counts, stress and variants by hand, edit distance against its definition, what is scored."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks
from tasks.base import SPLITS, scores
from tasks.seq2seq.g2p import COUNTS, LETTERS, _pronunciations, levenshtein


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_levenshtein_is_what_its_recursive_definition_says(a, b):
    @cache
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    assert levenshtein(a, b) == distance(len(a), len(b))


def words_of(batch):
    """The words of a batch, whose letters follow one another as `'abc…z` do."""
    codes = np.frombuffer(LETTERS.encode(), dtype=np.uint8)[batch.inputs] * batch.mask
    return codes.astype(np.uint8).view(f"S{codes.shape[1]}").ravel().astype(str).tolist()


def spelt(task, tokens):
    names = {index + 2: name for name, index in task.phonemes.items()}
    return " ".join(names[int(token)] for token in tokens if token > 1)


def everything(task, split):
    return task.examples(split, np.arange(task.count(split)), 0)


def test_the_dictionary_is_the_published_one():
    """39 phonemes; 'tomato' and 'read' by hand; comments, variants' numbers and stress are gone."""
    plain, stressed = tasks.build("g2p"), tasks.build("g2p", stress=True)
    assert (len(plain.phonemes), len(stressed.phonemes)) == (39, 69)
    assert [" ".join(phones) for phones in _pronunciations(True)["tomato"]] == [
        "T AH0 M EY1 T OW2",
        "T AH0 M AA1 T OW2",
    ]
    assert _pronunciations(False)["read"] == (("R", "EH", "D"), ("R", "IY", "D"))
    assert _pronunciations(False)["aalborg"][0] == ("AO", "L", "B", "AO", "R", "G")
    assert len(_pronunciations(False)) == 124_924
    assert {phone for several in _pronunciations(True).values() for phones in several for phone in phones} == set(
        stressed.phonemes
    )


@pytest.mark.parametrize("stress", [False, pytest.param(True, marks=pytest.mark.with_all)])
def test_pronunciations_of_a_word_stay_together(stress):
    task = tasks.build("g2p", stress=stress)
    seen = {}
    for split in SPLITS:
        batch = everything(task, split)
        words = words_of(batch)
        assert len(words) == COUNTS[stress][split]
        assert len(set(words)) == (len(words) if split != "train" else 100_182)
        seen[split] = set(words)
        for i in range(0, len(batch), 997):
            told = [" ".join(phones) for phones in _pronunciations(stress)[words[i]]]
            assert spelt(task, batch.targets[i]) in (told if split == "train" else told[:1])
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 124_924


def test_answers_are_scored_against_the_nearest_pronunciation():
    """Word 1 has T AH M EY T OW and T AH M AA T OW: the second is right too. Word 2, K AE T, is written K AA T S."""
    task = tasks.build("g2p")
    letters = [[LETTERS.index(c) for c in word] for word in ("tomato", "cat")]
    batch = tasks.base.Batch(
        inputs=np.array([letters[0], letters[1] + [0] * 3]), mask=np.array([[True] * 6, [True] * 3 + [False] * 3])
    ).tensors()

    def tokens(text):
        return [task.phonemes[phone] + 2 for phone in text.split()]

    totals = task.decoded([tokens("T AH M AA T OW"), tokens("K AA T S")], batch)
    assert totals == {"per": (2.0, 9.0), "wer": (1.0, 2.0)}
    assert scores(task.decoded([[], []], batch)) == {"per": 1.0, "wer": 1.0} == {"per": task.metric.chance, "wer": 1.0}
    assert task.decoded([[0] * 8, tokens("K AE T")], batch) == {"per": (8.0, 9.0), "wer": (1.0, 2.0)}


def test_baselines():
    """`letters` by a second count, word by word; rules with more context do better."""
    task = tasks.build("g2p")
    values = {b.name: b.value for b in task.baselines(limit=400)}
    assert values["letters in context"] < values["letters"] < 0.55
    assert values["neighbour"] == pytest.approx(0.40, abs=0.05)
    counts = {}
    for i, phones in ((i, row) for i, row in train_pairs(task) if len(i) == len(row)):
        for letter, phone in zip(i, phones, strict=True):
            counts[letter, phone] = counts.get((letter, phone), 0) + 1
    best = {c: max((n, p) for (letter, p), n in counts.items() if letter == c)[1] for c in LETTERS}
    distance = length = 0
    batch = task.examples("test", task.evaluation_ids("test", 400), 0)
    for word in words_of(batch):
        own = [best[c] for c in word]
        nearest = min(_pronunciations(False)[word], key=lambda reference: levenshtein(own, reference))
        distance, length = distance + levenshtein(own, nearest), length + len(nearest)
    assert values["letters"] == pytest.approx(distance / length)


def train_pairs(task):
    """Every training word with the first of its pronunciations."""
    batch = everything(task, "train")
    words = dict.fromkeys(words_of(batch))
    return [(word, _pronunciations(False)[word][0]) for word in words]
