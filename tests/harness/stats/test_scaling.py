"""Laws that were planted are found again, with what they say of compute."""

import math

import numpy as np
import pytest

from harness.stats import scaling
from harness.stats.scaling import Law, crossing, fit, multiplier

RUNGS = [6 * n * 20 * n for n in (10e3, 30e3, 90e3, 270e3, 810e3)]
TRUE = Law(E=1.7, A=1.1, a=0.22, C0=1e12)


def ladder(law, noise=0.0, seeds=3, rng=None, rungs=RUNGS):
    rng = rng or np.random.default_rng(0)
    return [[law.loss(C) * math.exp(noise * rng.normal()) for _ in range(seeds)] for C in rungs]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(scaling, "DRAWS", 60)


def test_a_law_without_noise_is_found():
    found = fit(RUNGS, ladder(TRUE)).law
    for C in (RUNGS[0], RUNGS[-1], 10 * RUNGS[-1]):
        assert found.loss(C) == pytest.approx(TRUE.loss(C), rel=1e-6)
        assert found.compute(found.loss(C)) == pytest.approx(C, rel=1e-9)
    assert (found.E, found.a) == pytest.approx((TRUE.E, TRUE.a), rel=1e-3)


def test_one_wild_run_moves_the_law_less_than_least_squares():
    losses = ladder(TRUE, 0.002)
    clean = fit(RUNGS, losses).law.loss(RUNGS[2])
    losses[2][0] *= 1.3
    assert fit(RUNGS, losses).law.loss(RUNGS[2]) == pytest.approx(clean, rel=0.01)
    assert np.mean(losses[2]) > 1.08 * clean


def test_the_next_rung_is_within_its_interval_as_often_as_it_says():
    """Of 40 ladders, with the rung after the last made as well: 90% are 36; fewer than 30 has .01."""
    rng, within = np.random.default_rng(1), 0
    for _ in range(40):
        *below, last = ladder(TRUE, 0.005, rng=rng, rungs=[*RUNGS, 9 * RUNGS[-1]])
        _, low, high = fit(RUNGS, below).predicted(9 * RUNGS[-1], seeds=3)
        within += low <= np.mean(last) <= high
    assert within >= 30


def test_a_planted_multiplier_is_recovered():
    """The same architecture as if it had half again as much compute."""
    rng = np.random.default_rng(2)
    better = Law(TRUE.E, TRUE.A, TRUE.a, TRUE.C0 / 1.5)
    row, reference = fit(RUNGS, ladder(better, 0.003, rng=rng)), fit(RUNGS, ladder(TRUE, 0.003, rng=rng), seed=7)
    for C in RUNGS[1:]:
        found, low, high = multiplier(row, reference, C)
        assert found == pytest.approx(1.5, rel=0.1)
        assert low <= found <= high
    assert multiplier(reference, row, RUNGS[2])[0] == pytest.approx(1 / 1.5, rel=0.1)


def test_what_the_reference_never_reaches_costs_it_without_end():
    low = Law(0.5, 1.0, 0.3, 1e12)
    row, reference = fit(RUNGS, ladder(low)), fit(RUNGS, ladder(Law(3.0, 1.0, 0.3, 1e12)))
    found, _, high = multiplier(row, reference, 1e6 * RUNGS[-1])
    assert found == high == math.inf


def test_curves_cross_where_they_do():
    steep, flat = Law(1.5, 1.0, 0.4, 1e12), Law(1.9, 0.6, 0.1, 1e12)
    assert crossing(steep, flat, 1e9, 1e15) == pytest.approx(1e12, rel=1e-6)
    assert crossing(steep, flat, 1e13, 1e15) is None


def test_too_few_rungs_and_no_losses():
    with pytest.raises(ValueError, match="needs 3 rungs, there are 2"):
        fit(RUNGS[:2], ladder(TRUE)[:2])
    with pytest.raises(ValueError, match="must be positive"):
        fit(RUNGS, [[math.nan], *ladder(TRUE)[1:]])


def test_draws_are_the_same_again():
    one, other = (fit(RUNGS, ladder(TRUE, 0.01)) for _ in range(2))
    assert one == other
    assert len(one.resampled) == 60
