"""Each rule again as a plain reader of one row: where it can answer, targets count, and its answers are right."""

import random

import numpy as np
import pytest
import torch

import tasks
from tasks.base import SPLITS
from tasks.recall.common import commonest_so_far, last_so_far, nearest_to

IDS = np.arange(400)


def copied(row: list[int], task) -> dict[int, int]:
    """The data tokens, at the last steps."""
    data = [token for token in row[: -task.data] if token in task.answers]
    return dict(zip(range(len(row) - task.data, len(row)), data, strict=True))


def induced(row: list[int], task) -> dict[int, int]:
    """What followed the special token."""
    special = row[-1]
    assert row.count(special) == 2
    return {len(row) - 1: row[row.index(special) + 1]}


def queried(row: list[int], task) -> dict[int, int]:
    """The value behind the last token's first occurrence."""
    assert row[-3:-1] == [task.vocab - 1] * 2
    of_key = {}
    for key, value in zip(row[:-3:2], row[1:-3:2], strict=True):
        assert of_key.setdefault(key, value) == value
    return {len(row) - 1: of_key[row[-1]]}


def looked_up(row: list[int], task) -> dict[int, int]:
    """The fixed value of each key, at the insert token behind it."""
    return {i: int(task.values[row[i - 1]]) for i, token in enumerate(row) if token == task.vocab - 1}


def reconstructed(row: list[int], task) -> dict[int, int]:
    """The row itself."""
    return dict(enumerate(row))


def recalled(row: list[int], task) -> dict[int, int]:
    """The values of keys seen before; the last key has its value yet to come."""
    of_key, answers = {}, {}
    for i in range(0, len(row), 2):
        if row[i] >= task.keys:
            assert row[i] >= task.answers.stop
            continue
        if row[i] in of_key:
            answers[i] = of_key[row[i]]
        if i + 1 < len(row):
            assert of_key.setdefault(row[i], row[i + 1]) == row[i + 1]
    return answers


def recalled_motifs(row: list[int], task) -> dict[int, int]:
    """The same where runs of key tokens and runs of value tokens take turns, behind pads."""
    start = next(i for i, token in enumerate(row) if token < task.keys)
    assert set(row[:start]) == {task.vocab - 1}
    of_key, answers, i = {}, {}, start
    while i < len(row):
        middle = next((j for j in range(i, len(row)) if row[j] >= task.keys), len(row))
        end = next((j for j in range(middle, len(row)) if row[j] < task.keys), len(row))
        key, value = tuple(row[i:middle]), tuple(row[middle:end])
        assert len(set(key)) == len(key) <= task.key_motif
        assert len(set(value)) == len(value) <= task.value_motif
        if key in of_key:
            assert of_key[key][: len(value)] == value
            answers |= dict(enumerate(of_key[key], start=middle - 1))
        else:
            of_key[key] = value
        i = end
    return answers


def looked_up_by_name(row: list[int], task) -> dict[int, int]:
    """The digits behind each question, from lines split at their marks."""
    colon, end, ask = task.vocab - 3, task.vocab - 2, task.vocab - 1
    size, answers, of_name = task.line, {}, {}
    for i in range(0, len(row), size):
        line = row[i : i + size]
        if i < task.entries * size:
            at = line.index(colon)
            assert line[-1] == end
            assert of_name.setdefault(tuple(line[:at]), line[at + 1 : -1]) is not None
            continue
        at = line.index(colon)
        assert line[0] == ask
        answers |= dict(enumerate(of_name.pop(tuple(line[1:at])), start=i + at))  # no entry is asked for twice
    assert len(of_name) == task.entries - task.questions
    return answers


CASES = [
    ("phonebook", {}, looked_up_by_name),
    ("phonebook", {"entries": 3, "letters": 1, "digits": 5, "questions": 3}, looked_up_by_name),
    ("selective_copy", {}, copied),
    ("selective_copy", {"length": 5, "data": 5, "vocab": 4}, copied),
    ("induction", {}, induced),
    ("induction", {"length": 8, "vocab": 3}, induced),
    ("associative_recall", {}, queried),
    ("associative_recall", {"keys": 4, "values": 4, "pairs": 10, "repeats": True}, queried),
    ("mad_in_context_recall", {}, recalled),
    ("mad_in_context_recall", {"vocab": 11, "length": 18}, recalled),
    ("mad_noisy_recall", {}, recalled),
    ("mad_noisy_recall", {"noise": 0.8, "length": 8}, recalled),
    ("mad_fuzzy_recall", {}, recalled_motifs),
    ("mad_fuzzy_recall", {"key_motif": 1, "value_motif": 2, "length": 10}, recalled_motifs),
    ("mad_selective_copy", {}, copied),
    ("mad_selective_copy", {"length": 12, "data": 5}, copied),
    ("mad_compression", {}, reconstructed),
    ("mad_memorization", {}, looked_up),
    ("mad_memorization", {"vocab": 10, "length": 16}, looked_up),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]} {case[1]}")
def built(request):
    name, options, solve = request.param
    return tasks.build(name, **options), solve


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_plain_reader_answers_everything_that_counts(built, split):
    """MAD's recall counts every next token in training."""
    task, solve = built
    batch = task.examples(split, IDS if split == "test" else IDS[:50], 0)
    every = split == "train" and task.name.startswith("mad") and task.name.endswith("_recall")
    for row, targets, counted in zip(batch.inputs.tolist(), batch.targets.tolist(), batch.counted, strict=True):
        answers = {int(i): targets[i] for i in np.flatnonzero(counted)}
        if every:
            assert answers == dict(enumerate([*row[1:], targets[-1]]))
            assert solve(row, task).items() <= answers.items()
        else:
            assert solve(row, task) == answers
    assert not batch.targets[~batch.counted].any()


def test_chance_is_what_a_uniform_guess_scores(built):
    task, _ = built
    batch = task.examples("test", np.arange(1000), 0)
    guesses = np.random.default_rng(0).integers(task.answers.start, task.answers.stop, batch.targets.shape)
    if task.role == "reconstruct":
        guesses[:, -1] = task.vocab - 1
    right = (guesses == batch.targets)[batch.counted]
    p = task.metric.chance
    assert abs(right.mean() - p) < 4 * (p * (1 - p) / right.size) ** 0.5
    assert batch.targets[batch.counted].min() >= min(task.answers)


def chi2(tokens: np.ndarray, expected: np.ndarray) -> float:
    """χ² of tokens 0..n−1 against expected counts (n,), over its degrees of freedom."""
    counts = np.bincount(tokens, minlength=len(expected))
    return float(((counts - expected) ** 2 / expected).sum() / (len(expected) - 1))


@pytest.mark.parametrize(
    ("name", "kinds", "which"),
    [
        ("selective_copy", 14, lambda b: b.targets[b.counted] - 1),
        ("selective_copy", 64, lambda b: np.nonzero(b.inputs[:, :64])[1]),
        ("induction", 15, lambda b: b.targets[b.counted]),
        ("induction", 254, lambda b: (b.inputs == 15).argmax(axis=1)),
        ("associative_recall", 10, lambda b: b.targets[b.counted] - 26),
        ("associative_recall", 26, lambda b: b.inputs[:, 0:16:2].ravel()),
        ("associative_recall", 8, lambda b: (b.inputs[:, :16] == b.inputs[:, -1:]).argmax(axis=1) // 2),
        ("mad_in_context_recall", 8, lambda b: b.inputs[:, 0:-1:2].ravel()),
        ("mad_in_context_recall", 8, lambda b: b.inputs[:, 1] - 8),
        ("mad_noisy_recall", 16, lambda b: b.inputs[b.inputs >= 16] - 16),
        ("mad_fuzzy_recall", 7, lambda b: b.inputs[b.inputs < 7]),
        ("mad_selective_copy", 14, lambda b: b.targets[b.counted]),
        ("mad_compression", 15, lambda b: b.inputs[:, :-1].ravel()),
        ("mad_memorization", 127, lambda b: b.inputs[:, 0::2].ravel()),
    ],
)
def test_tokens_and_places_are_uniform(name, kinds, which):
    drawn = which(tasks.build(name, examples=None).examples("train", np.arange(3000), 0))
    n = (drawn >= 0).sum()
    assert chi2(drawn, np.full(kinds, n / kinds)) < 1 + 5 * (2 / (kinds - 1)) ** 0.5


def test_blanks_of_mad_are_put_before_uniform_data_tokens():
    """Gaps are multinomial over the data tokens: variance n/M (1 − 1/M); nothing stands behind the last."""
    batch = tasks.build("mad_selective_copy").examples("train", np.arange(2000), 0)
    context, copy, cue = batch.inputs[:, :239], batch.inputs[:, 239], batch.inputs[:, 240:]
    assert (copy == 15).all()
    assert (cue == 14).all()
    places = np.nonzero(context < 14)[1].reshape(-1, 16)
    gaps = np.diff(places, axis=1, prepend=-1) - 1
    assert (gaps.sum(axis=1) == 223).all()
    np.testing.assert_allclose(gaps.mean(axis=0), 223 / 16, atol=0.4)
    assert gaps.var() == pytest.approx(223 / 16 * 15 / 16, rel=0.03)


def test_a_fifth_of_the_pairs_is_noise_and_one_never():
    task = tasks.build("mad_noisy_recall", examples=None)
    share = (task.examples("train", np.arange(3000), 0).inputs[:, 0:-1:2] >= 16).mean()
    assert share == pytest.approx(0.2 * 62 / 63, abs=0.004)
    mostly = tasks.build("mad_noisy_recall", noise=0.99, examples=None).examples("train", np.arange(500), 0)
    assert (mostly.inputs[:, 0:-1:2] < 8).any(axis=1).all()


def published_fuzzy(rng: random.Random, *, training: bool) -> tuple[int, int, int, bool]:
    """One example as the official file draws it: pads, pairs, counted tokens, whether the pair asked for is there."""

    def motif(tokens: range, low: int) -> tuple[int, ...]:
        return tuple(rng.sample(tokens, rng.randint(low, 3)))

    low = 1 if training else 3
    key, value = motif(range(7), low), motif(range(7, 15), 1)
    size = len(key) + len(value)
    place, added, length, of_key, motifs, counted = rng.randrange(128 - 2 * size), False, 0, {}, 0, len(value)
    while length < 128 - size - 6:
        k, v = motif(range(7), low), motif(range(7, 15), 1)
        if length >= place and not added:
            k, v, added = key, value, True
        elif k == key:
            v, added = value, True
        known, v = k in of_key, of_key.setdefault(k, v)
        motifs, length, counted = motifs + 1, length + len(k) + len(v), counted + known * len(v)
    return 129 - length - size, motifs, counted, added


@pytest.mark.parametrize("training", [True, False])
def test_fuzzy_examples_are_distributed_as_published(training):
    """Pads, pairs and counted tokens; the published generator leaves out the pair asked for in 2 % of examples."""
    rng = random.Random(0)
    published = np.array([published_fuzzy(rng, training=training) for _ in range(3000)])
    assert 1 - published[:, 3].mean() == pytest.approx(0.02, abs=0.01)
    task = tasks.build("mad_fuzzy_recall", examples=None)
    batch = task.examples("train" if training else "test", np.arange(3000), 0)
    ours = [
        (batch.inputs == 15).sum(axis=1),
        ((batch.inputs[:, 1:] < 7) & (batch.inputs[:, :-1] >= 7)).sum(axis=1) - 1,
        batch.counted.sum(axis=1),
    ]
    for quantity, theirs in zip(ours[: 2 if training else 3], published.T, strict=False):
        assert abs(quantity.mean() - theirs.mean()) < 4 * ((quantity.var() + theirs.var()) / 3000) ** 0.5
        assert quantity.std() == pytest.approx(theirs.std(), rel=0.1)


def test_the_map_is_one_to_one_and_the_same_everywhere():
    one, other = tasks.build("mad_memorization"), tasks.build("mad_memorization", length=64, examples=None)
    assert len(set(one.values.tolist())) == 127
    assert min(one.values) >= 127
    assert max(one.values) < 255
    np.testing.assert_array_equal(one.values, other.values)
    assert {int(key) for key in one.examples("train", np.arange(256), 0).inputs[:, 0::2].ravel()} == set(range(127))


def test_published_shapes_and_sizes():
    """Steps, chance and examples at the official settings (configs/tasks/*.yml)."""
    expected = {
        "mad_in_context_recall": (127, 16, 1 / 8, 12_800),
        "mad_noisy_recall": (127, 32, 1 / 8, 12_800),
        "mad_fuzzy_recall": (128, 16, 1 / 8, 12_800),
        "mad_selective_copy": (256, 16, 1 / 14, 12_800),
        "mad_compression": (32, 16, (31 / 15 + 1) / 32, 12_800),
        "mad_memorization": (32, 256, 1 / 128, 256),
    }
    for name, (steps, vocab, chance, examples) in expected.items():
        task = tasks.build(name)
        assert (task.shape.length, task.shape.vocab, task.shape.outputs) == (steps, vocab, vocab)
        assert task.metric.chance == pytest.approx(chance)
        assert (task.count("train"), task.count("test")) == (examples, 1280)
        assert task.difficulties["paper"].options == {}
        assert task.difficulties["paper"].train["batch_tokens"] == 128 * steps
        assert task.difficulties["paper"].stop["tokens"] == 200 * examples * steps


def test_training_repeats_or_does_not():
    for name in ("mqar", "selective_copy", "mad_fuzzy_recall", "mad_memorization"):
        finite, fresh = tasks.build(name, examples=64), tasks.build(name, examples=None)
        assert (finite.count("train"), fresh.count("train")) == (64, None)
        np.testing.assert_array_equal(*(finite.examples("train", IDS, seed).inputs for seed in (0, 1)))
        assert (fresh.examples("train", IDS, 0).inputs != fresh.examples("train", IDS, 1).inputs).any(axis=1).all()


def test_data_of_splits_differ_where_there_is_little():
    task = tasks.build("selective_copy", vocab=6, length=8, data=4)
    batches = [task.examples(split, np.arange(500), 0) for split in SPLITS]
    data = [set(map(tuple, batch.targets[:, -4:].tolist())) for batch in batches]
    assert sum(map(len, data)) == len(set().union(*data)) <= 4**4
    with pytest.raises(ValueError, match="mad_compression: too few different examples"):
        tasks.build("mad_compression", length=2, vocab=3).examples("tune", np.arange(10), 0)


@pytest.mark.parametrize("name", ["induction", "selective_copy", "mad_in_context_recall", "mad_fuzzy_recall"])
def test_stretched_inputs_keep_the_rule(name):
    longer = tasks.build(name, length=32).stretched(4)
    assert longer.options == {"length": 128}
    assert longer.fingerprint == tasks.build(name, length=128).fingerprint
    assert longer.examples("test", np.arange(2), 0).inputs.shape == (2, longer.shape.length)


def test_guesses_by_hand():
    inputs = np.array([[9, 3, 4, 4, 9, 3, 3], [3, 9, 9, 9, 9, 9, 5]])
    assert commonest_so_far(inputs, range(3, 6)).tolist() == [[3, 3, 3, 4, 4, 3, 3], [3, 3, 3, 3, 3, 3, 3]]
    assert last_so_far(inputs, range(3, 6)).tolist() == [[3, 3, 4, 4, 4, 3, 3], [3, 3, 3, 3, 3, 3, 5]]
    assert nearest_to(inputs, range(3, 6), np.array([0.0, 4.1])).tolist() == [[3, 3], [3, 5]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("selective_copy", {"constant": 1 / 14, "commonest": 0.265, "last": (1 + 7 / 14) / 8, "expected place": 0.47}),
        ("induction", {"constant": 1 / 15, "commonest": 0.095, "last": 1 / 15}),
        ("associative_recall", {"constant": 0.1, "commonest": 0.295, "last": (1 + 7 / 10) / 8}),
        ("mqar", {"constant": 1 / 64, "last value": 1 / 8, "in order": 0.155}),
        ("mad_in_context_recall", {"constant": 0.125, "commonest": 0.32, "last": 0.247}),
        ("mad_noisy_recall", {"constant": 0.125, "commonest": 0.32, "last": 0.25}),
        ("mad_fuzzy_recall", {"constant": 0.125, "commonest": 0.187, "last": 0.07}),
        (
            "mad_selective_copy",
            {"constant": 1 / 14, "commonest": 0.203, "last": (1 + 15 / 14) / 16, "expected place": 0.81},
        ),
        ("mad_compression", {"constant": (31 / 15 + 1) / 32, "commonest": 0.185, "last": (1 + 30 / 15 + 1) / 32}),
        ("mad_memorization", {"constant": 1 / 127}),
    ],
)
def test_baselines(name, expected):
    """What can be worked out is; the others guard against change."""
    task = tasks.build(name)
    assert {b.name: b.value for b in task.baselines()} == pytest.approx(expected, abs=0.015)
    assert len(task.baselines(limit=10)) == len(expected)


def test_whole_numbers_of_a_phonebook():
    """One digit in each of two books is wrong, of six questions in all; what is not counted does not matter."""
    task = tasks.build("phonebook", entries=4, questions=3)
    batch = task.batch("test", 0, 0, size=2).tensors()
    logits = torch.nn.functional.one_hot(batch.targets, task.vocab).float()
    for row, question in ((0, 1), (1, 2)):
        at = batch.counted[row].nonzero().flatten()[3 * question]
        logits[row, at] = logits[row, at].roll(1)
    logits[:, 0] = torch.randn(2, task.vocab)
    totals = task.totals(logits, batch)
    assert totals["exact"] == (4.0, 6.0)
    assert totals["accuracy"] == (16.0, 18.0)
    batch.counted &= torch.arange(batch.counted.shape[1]) == batch.counted[0].nonzero()[0]
    assert task.totals(logits, batch)["exact"] == (2.0, 2.0)
