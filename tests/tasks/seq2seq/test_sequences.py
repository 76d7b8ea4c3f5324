"""Reverse, sort, add: every answer worked out from what the source says, and how written answers are scored."""

import numpy as np
import pytest

import tasks
from tasks.base import scores

IDS = np.arange(1500)


def read(batch):
    """Sources and answers as lists, and the rules of the role: what the decoder sees, what counts, what is padding."""
    sources, answers = [], []
    for i in range(len(batch)):
        n = int(batch.mask[i].sum())
        assert batch.mask[i, :n].all()
        assert not batch.inputs[i, n:].any()
        targets = batch.targets[i].tolist()
        u = targets.index(1)
        assert batch.counted[i].tolist() == [step <= u for step in range(len(targets))]
        assert not any(targets[u + 1 :])
        assert min(targets[:u]) >= 2
        assert batch.decoder_inputs[i].tolist() == [0, *targets[:-1]]
        sources.append(batch.inputs[i, :n].tolist())
        answers.append([token - 2 for token in targets[:u]])
    return sources, answers


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("name", "rule"), [("reverse", lambda s: s[::-1]), ("sort", sorted)])
@pytest.mark.parametrize("options", [{}, {"length": 5, "vocab": 4}, {"length": 9, "shortest": 7}])
def test_answers_rearrange_the_source(name, rule, options, split):
    task = tasks.build(name, **options)
    sources, answers = read(task.examples(split, IDS, 3))
    assert answers == [rule(source) for source in sources]
    lengths, seen = set(map(len, sources)), {token for source in sources for token in source}
    assert lengths == set(range(2 if options.get("vocab") == 4 else task.shortest, task.length + 1)) | (lengths & {1})
    assert seen == set(range(task.vocab))


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("digits", [1, 3, 12])
def test_answers_are_sums(digits, backwards):
    task = tasks.build("addition", digits=digits, backwards=backwards)
    sources, answers = read(task.examples("train" if digits > 1 else "test", IDS, 3))
    widths = set()
    for source, answer in zip(sources, answers, strict=True):
        text = "".join("0123456789+"[token] for token in source)
        a, b = text.split("+")
        assert (a, b) == (str(int(a)), str(int(b)))
        assert str(int(a) + int(b)) == "".join(map(str, answer[::-1] if backwards else answer))
        widths |= {len(a), len(b)}
    assert widths == set(range(1, digits + 1))


def test_lengths_and_symbols_are_uniform():
    """Within four standard deviations, for 20,000 sequences."""
    batch = tasks.build("reverse", length=16, vocab=8, shortest=9).examples("train", np.arange(20_000), 0)
    lengths = batch.mask.sum(axis=1)
    np.testing.assert_allclose(np.bincount(lengths)[9:], 2500, atol=4 * 47)
    symbols = batch.inputs[batch.mask]
    np.testing.assert_allclose(np.bincount(symbols), len(symbols) / 8, rtol=0.02)


def test_stretched_tests_only_longer_inputs():
    for name, size in (("reverse", "length"), ("addition", "digits")):
        task = tasks.build(name, **{size: 4})
        longer = task.stretched(3)
        assert getattr(longer, size) == longer.options[size] == 12
        lengths = longer.examples("test", IDS, 0).mask.sum(axis=1)
        assert (lengths.min(), lengths.max()) == ((5, 12) if size == "length" else (11, 25))
        assert task.stretched(1).fingerprint == task.fingerprint


def test_only_a_whole_answer_is_right():
    task = tasks.build("sort", length=4, vocab=6)
    batch = task.batch("test", 0, size=4)
    right = [[token for token in row if token > 1] for row in batch.targets.tolist()]
    assert task.decoded(right, batch) == {"exact": (4.0, 4.0)}
    assert scores(task.decoded([right[0], right[1][:-1], [*right[2], 2], []], batch)) == {"exact": 0.25}
    assert task.decoding == tasks.base.Decoding(start=0, stop=1, longest=5, beam=1)


def test_baselines_and_chance():
    reverse = tasks.build("reverse", length=4, vocab=4)
    assert reverse.metric.chance == pytest.approx((1 / 4 + 1 / 16 + 1 / 64 + 1 / 256) / 4)
    sources, answers = read(reverse.examples("test", np.arange(3000), 0))
    palindromes = sum(s == a for s, a in zip(sources, answers, strict=True)) / 3000
    assert [(b.name, b.value) for b in reverse.baselines()] == [("copy", palindromes)]

    addition = tasks.build("addition", digits=2)
    assert addition.metric.chance == pytest.approx((0.1 + 3 * 0.01) / 4)
    values = {b.name: b.value for b in addition.baselines()}
    assert values["larger operand"] < 0.25 < values["no carries"] < 0.7
    assert tasks.build("addition", digits=2, backwards=True).baselines()[1].value == pytest.approx(values["no carries"])
