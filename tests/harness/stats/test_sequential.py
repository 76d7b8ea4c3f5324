"""Seeds that are added: the level of each look, and what is undecided."""

import numpy as np
import pytest

from harness.records.parts import Mismatch
from harness.records.seeds import SeedRule
from harness.stats import LEVEL, compare, level_of, looks, undecided
from harness.stats.judge import judge

PAIRS, WIDTH = SeedRule(3, 10, "separated"), SeedRule(3, 10, 0.1)


def scores(**means):
    return {a: {s: m + 0.01 * (s - 1) for s in range(3)} for a, m in means.items()}


def test_a_rule_that_results_keep_is_checked():
    assert SeedRule.from_dict({"start": 3, "most": 10, "until": "separated"}) == PAIRS
    for most, until in ((2, "separated"), (1, 0.1), (10, "seperated"), (10**9, 0.1)):
        with pytest.raises(Mismatch):
            SeedRule.from_dict({"start": 3, "most": most, "until": until})


def test_looks_share_the_level_and_widths_are_no_looks():
    assert looks(PAIRS) * level_of(PAIRS) == pytest.approx(LEVEL)
    assert looks(PAIRS) == 8, "after 3, 4, … 10 seeds"
    assert (looks(WIDTH), level_of(WIDTH), level_of(None)) == (1, LEVEL, LEVEL)


def test_the_level_is_that_of_pairs_and_intervals_stay():
    y = np.random.default_rng(0).normal(size=(8, 3)) + 1.5 * np.arange(8)[:, None]
    whole, look = judge(y), judge(y, level_of(PAIRS))
    assert (whole.half == look.half).all()
    assert (look.apart <= whole.apart).all()
    assert look.apart.sum() < whole.apart.sum()


def test_undecided_are_neighbours_in_the_order_of_means():
    found = compare(scores(a=1.0, d=9.0, b=1.001, c=5.0), higher_is_better=False)
    assert undecided(PAIRS, found) == [("a", "b")]
    assert undecided(PAIRS, compare({}, higher_is_better=True)) == []


def test_undecided_are_rows_whose_interval_is_wider():
    wide = scores(a=1.0, b=2.0, c=3.0) | {"d": {0: 3.0, 1: 4.0, 2: 5.0}}
    found = compare(wide, higher_is_better=True)
    half = {a: (e.high - e.low) / 2 for a, e in found.estimates.items()}
    assert undecided(WIDTH, found) == [("d",)]
    assert undecided(SeedRule(3, 10, half["d"] * 1.001), found) == []
    assert undecided(WIDTH, compare({a: {0: 1.0, 1: 1.0} for a in "ab"}, higher_is_better=True)) == [], "no scatter"
