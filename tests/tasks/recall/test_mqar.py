"""Associative recall: what must hold in every example, and how far queries stand from the context."""

import numpy as np
import pytest

import tasks

IDS = np.arange(2000)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"random_non_queries": True},
        {"vocab": 12, "length": 16, "pairs": 4},
        {"vocab": 11, "length": 21, "pairs": 4},
    ],
)
def test_every_query_asks_for_a_value_of_the_context(options):
    task = tasks.build("mqar", **options)
    vocab, pairs = task.vocab, task.pairs
    batch = task.examples("train", IDS, 5)
    keys, values = batch.inputs[:, 0 : 2 * pairs : 2], batch.inputs[:, 1 : 2 * pairs : 2]
    assert keys.min() >= 1
    assert keys.max() < vocab // 2 <= values.min()
    assert values.max() < vocab
    for drawn in (keys, values):
        assert (np.diff(np.sort(drawn)) > 0).all()
    assert (batch.counted.sum(axis=1) == pairs).all()
    assert not batch.counted[:, : 2 * pairs].any()
    assert not batch.targets[~batch.counted].any()
    asked = batch.inputs[batch.counted].reshape(-1, pairs)
    answers = batch.targets[batch.counted].reshape(-1, pairs)
    match = asked[:, :, None] == keys[:, None, :]
    assert (match.sum(axis=2) == 1).all()
    np.testing.assert_array_equal(answers, np.take_along_axis(values, match.argmax(axis=2), axis=1))
    assert (np.nonzero(batch.counted)[1] % 2 == 0).all()
    blanks = batch.inputs[:, 2 * pairs :][~batch.counted[:, 2 * pairs :]]
    assert blanks.any() == bool(options.get("random_non_queries"))
    assert blanks.max() < vocab


@pytest.mark.parametrize("power_a", [0.01, 0.5, 1.0])
def test_gaps_follow_the_power_law(power_a):
    """The first has p(g) ∝ (g+1)^(a−1); the second is drawn from the slots left: j has Σ_{i≠j} pᵢ pⱼ / (1 − pᵢ)."""
    batch = tasks.build("mqar", power_a=power_a).examples("train", np.arange(20_000), 0)
    p = np.arange(1, 25) ** (power_a - 1.0)
    p /= p.sum()
    odds = p / (1 - p)
    for key, share in ((0, p), (2, p * (odds.sum() - odds))):
        places = np.nonzero((batch.inputs == batch.inputs[:, key : key + 1]) & batch.counted)[1]
        observed, expected = np.bincount((places - 16) // 2, minlength=24), 20_000 * share
        assert ((observed - expected) ** 2 / expected).sum() < 49.7  # χ² with 23 degrees of freedom, p = .001


def test_slots_are_taken_as_often_as_in_the_published_generator():
    """NumPy's choice without replacement under p(g) ∝ a g^(a−1), g = 1..24, is what the official file calls."""
    n, rng = 5000, np.random.RandomState(0)
    p = 0.01 * np.arange(1, 25) ** (0.01 - 1)
    theirs = np.bincount(
        np.concatenate([rng.choice(24, replace=False, p=p / p.sum(), size=8) for _ in range(n)]), minlength=24
    )
    ours = tasks.build("mqar").examples("train", np.arange(n), 0).counted[:, 16::2].sum(axis=0)
    assert ((ours - theirs) ** 2 / (ours + theirs)).sum() < 49.7


def test_stretched_inputs_have_more_pairs():
    longer = tasks.build("mqar", vocab=66, length=16, pairs=4).stretched(8)
    assert (longer.options["length"], longer.options["pairs"]) == (128, 32)
    batch = longer.examples("test", np.arange(5), 0)
    assert batch.inputs.shape == (5, 128)
    assert (batch.counted.sum(axis=1) == 32).all()
    for tokens, targets, counted in zip(batch.inputs, batch.targets, batch.counted, strict=True):
        book = dict(zip(tokens[:64:2], tokens[1:64:2], strict=True))
        assert [book[key] for key in tokens[counted]] == list(targets[counted])
