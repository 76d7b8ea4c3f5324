"""The expected best of k trials, against counting all choices of k."""

import itertools
import math
import statistics

import pytest

from harness.stats.best import expected_best


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("values", [[3.0], [0.1, 0.7, 0.4], [2.0, -1.0, 2.0, 0.5, 9.0], [1.5] * 4])
def test_equal_to_enumeration(values, higher):
    best = max if higher else min
    counted = [statistics.fmean(map(best, itertools.combinations(values, k))) for k in range(1, len(values) + 1)]
    assert expected_best(values, higher_is_better=higher) == pytest.approx(counted, abs=1e-12)


def test_ends_and_many_trials():
    values = [math.sin(i) for i in range(60)]
    found = expected_best(values, higher_is_better=True)
    assert (found[0], found[-1]) == pytest.approx((statistics.fmean(values), max(values)))
    assert found == sorted(found)
    assert expected_best([], higher_is_better=True) == []
