"""The ranking statistics against hand arithmetic, SciPy's own Tukey test and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import stats

NOISE = {"a": (0.01, -0.02, 0.01), "b": (-0.01, 0.01, 0.0), "c": (0.0, 0.01, -0.01)}
"""Rows and columns sum to zero, squares to .001: with (3 - 1)(3 - 1) = 4 degrees of freedom the variance is .00025."""


def planted(means: dict[str, float], block: float = 0.1) -> dict[str, dict[int, float]]:
    return {a: {s: means[a] + block * (s - 1) + NOISE[a][s] for s in range(3)} for a in means}


def drawn(rng: np.random.Generator, spread: list[float], seeds: int) -> dict[str, dict[int, float]]:
    values = rng.normal(size=(len(spread), seeds)) * np.array(spread)[:, None] + rng.normal(size=seeds)
    return {f"m{i}": dict(enumerate(row)) for i, row in enumerate(values.tolist())}


def test_planted_variance_and_intervals():
    found = stats.compare(planted({"a": 2.0, "b": 3.0, "c": 3.02}), higher_is_better=False)
    assert found.variance == pytest.approx(0.00025)
    assert found.df == 4
    assert list(found.estimates) == ["a", "b", "c"]
    b = found.estimates["b"]
    assert b.mean == pytest.approx(3.0)
    assert b.sd == pytest.approx(math.sqrt((0.11**2 + 0.01**2 + 0.1**2) / 2))
    half = 2.776445 * math.sqrt(0.00025 / 3)
    assert (b.low, b.high) == (pytest.approx(3 - half), pytest.approx(3 + half))
    # a's own residual variance is .0006 / (2 · 2/3) = .00045, which exceeds the pooled one and is used
    a = found.estimates["a"]
    assert a.high - a.mean == pytest.approx(2.776445 * math.sqrt(0.00045 / 3), rel=1e-5)


def test_planted_ranks_and_letters():
    found = stats.compare(planted({"a": 2.0, "b": 3.0, "c": 3.02}), higher_is_better=False)
    assert found.separated == {("a", "b"), ("a", "c")}
    assert {a: (e.rank_low, e.rank_high, e.letters) for a, e in found.estimates.items()} == {
        "a": (1, 1, "a"),
        "b": (2, 3, "b"),
        "c": (2, 3, "b"),
    }
    flipped = stats.compare(planted({"a": 2.0, "b": 3.0, "c": 3.02}), higher_is_better=True)
    assert flipped.separated == {("b", "a"), ("c", "a")}
    assert list(flipped.estimates) == ["c", "b", "a"]


def test_threshold_is_tukeys():
    """The smallest separated difference of b and c, whose variance is the pooled one, is q · √(s² / n)."""
    limit = scipy.stats.studentized_range.ppf(0.95, 3, 4) * math.sqrt(0.00025 / 3)
    for factor, apart in ((0.999, False), (1.001, True)):
        found = stats.compare(planted({"a": 0.0, "b": 3.0, "c": 3.0 + factor * limit}), higher_is_better=False)
        assert (("b", "c") in found.separated) is apart


def test_agrees_with_scipy_without_blocks():
    """On block-centred data SciPy's Tukey test has the same differences; its degrees of freedom are too many."""
    scores = planted({"a": 2.0, "b": 3.0, "c": 3.02})
    values = np.array([list(by.values()) for by in scores.values()])
    scipys = scipy.stats.tukey_hsd(*(values - values.mean(0)))
    assert scipys.pvalue[0, 1] < 0.05 < scipys.pvalue[1, 2]


def test_smallest_difference_formula():
    q, t = scipy.stats.studentized_range.ppf(0.95, 3, 4), scipy.stats.t.ppf(0.8, 4)
    expected = (q / math.sqrt(2) + t) * math.sqrt(2 * 0.00025 / 3)
    assert stats.smallest_difference(0.00025, 4, 3, 3) == pytest.approx(expected)


def test_one_seed_claims_nothing():
    found = stats.compare({"a": {0: 1.0}, "b": {0: 2.0}, "c": {0: 9.0}}, higher_is_better=False)
    assert not found.separated
    assert found.smallest_difference is None
    assert all((e.rank_low, e.rank_high, e.low, e.sd) == (1, 3, None, None) for e in found.estimates.values())
    assert any("one seed" in note for note in found.notes)


@pytest.mark.parametrize("other", [1.0, 0.25])
def test_no_scatter_claims_nothing(other: float):
    found = stats.compare(
        {"a": dict.fromkeys(range(3), 1.0), "b": dict.fromkeys(range(3), other)}, higher_is_better=True
    )
    assert not found.separated
    assert found.estimates["a"].low is None
    assert any("no scatter" in note for note in found.notes)


def test_one_architecture_has_a_plain_t_interval():
    found = stats.compare({"a": {0: 1.0, 1: 2.0, 2: 3.0}}, higher_is_better=True)
    e = found.estimates["a"]
    assert (e.low, e.high) == (pytest.approx(2 - 4.302653 / math.sqrt(3)), pytest.approx(2 + 4.302653 / math.sqrt(3)))
    assert (e.rank_low, e.rank_high, e.letters) == (1, 1, "a")


def test_missing_seeds_are_compared_within_blocks():
    """d has only the hard seed: its plain mean is far off, yet within that seed's block it equals b."""
    scores = planted({"a": 2.0, "b": 3.0, "c": 3.02}, block=5.0)
    scores["d"] = {1: scores["b"][1] + 0.005, 2: scores["b"][2] - 0.005}
    found = stats.compare(scores, higher_is_better=False)
    assert ("a", "d") in found.separated
    assert not {("b", "d"), ("d", "b")} & found.separated
    assert any("d (2 of 3)" in note for note in found.notes)


def test_single_seed_among_others_has_no_place():
    found = stats.compare(planted({"a": 2.0, "b": 3.0, "c": 3.02}) | {"d": {0: 0.0}}, higher_is_better=False)
    d = found.estimates["d"]
    assert (d.rank_low, d.rank_high, d.low) == (1, 4, None)
    assert found.estimates["a"].rank_high == 2


def test_disjoint_seeds_cannot_be_compared():
    scores = {"a": {0: 1.0, 1: 1.1}, "b": {2: 5.0, 3: 5.1}}
    assert not stats.compare(scores, higher_is_better=False).separated


def test_nothing_and_not_finite():
    assert stats.compare({}, higher_is_better=True).estimates == {}
    found = stats.compare({"a": {0: math.nan}, "b": {0: 1.0, 1: math.inf}}, higher_is_better=True)
    assert list(found.estimates) == ["b"]


names = st.sampled_from("abcdef")
tables = st.dictionaries(names, st.dictionaries(st.integers(0, 4), st.floats(-5, 5), max_size=5), max_size=6)


@given(tables, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_table_is_consistent(scores: dict[str, dict[int, float]], higher: bool, random):
    found = stats.compare(scores, higher_is_better=higher)
    n = len(found.estimates)
    for a, e in found.estimates.items():
        assert 1 <= e.rank_low <= e.rank_high <= n
        assert e.low is None or e.low <= e.mean <= e.high
        for b, other in found.estimates.items():
            apart = (a, b) in found.separated or (b, a) in found.separated
            assert a == b or apart is not bool(set(e.letters) & set(other.letters))
    assert all(
        (found.estimates[a].mean > found.estimates[b].mean) is higher
        and found.estimates[a].mean != found.estimates[b].mean
        for a, b in found.separated
    )
    shuffled = [(a, list(by.items())) for a, by in scores.items()]
    random.shuffle(shuffled)
    for _, by in shuffled:
        random.shuffle(by)
    assert stats.compare({a: dict(by) for a, by in shuffled}, higher_is_better=higher) == found


def test_letters_of_a_chain():
    """a-b and b-c are not separated, a-c is: b shares a letter with both."""
    assert stats.letters(["a", "b", "c"], {("a", "c")}) == {"a": "a", "b": "ab", "c": "b"}


@pytest.mark.parametrize(("spread", "limit"), [([1.0] * 6, 0.06), (list(np.geomspace(1, math.e, 6)), 0.075)])
def test_family_wise_error(spread: list[float], limit: float):
    """Equal architectures: how often is any pair separated? Standard error .007."""
    rng = np.random.default_rng(0)
    hits = sum(bool(stats.compare(drawn(rng, spread, 3), higher_is_better=True).separated) for _ in range(800))
    assert hits / 800 <= limit


def test_power_at_the_smallest_difference():
    rng = np.random.default_rng(1)
    tables = [drawn(rng, [1.0] * 6, 3) for _ in range(400)]
    difference = float(np.mean([stats.compare(t, higher_is_better=True).smallest_difference for t in tables]))
    for table in tables:
        table["m0"] = {s: v + difference for s, v in table["m0"].items()}
    power = np.mean([("m0", "m1") in stats.compare(t, higher_is_better=True).separated for t in tables])
    assert 0.72 < power < 0.9
