"""The test on arrays: against SciPy where it reduces to what SciPy has, a general optimizer, and by simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from scipy import integrate, optimize

from harness.stats import judge as model
from harness.stats.judge import Verdict, fit_prior, judge

FIRST, SECOND = np.triu_indices(8, 1)


def judged(y: np.ndarray) -> list[Verdict]:
    return [judge(board, draws=1000, seed=number) for number, board in enumerate(y)]


def apart(y: np.ndarray) -> np.ndarray:
    return np.array([verdict.apart for verdict in judged(y)])


def boards(seed: int, spread, n: int = 3, count: int = 800) -> np.ndarray:
    """Equal rows: (count, rows, n)."""
    rng = np.random.default_rng(seed)
    sd = np.broadcast_to(spread(rng, count) if callable(spread) else spread, (count, 8))
    return rng.normal(size=(count, 8, n)) * sd[:, :, None]


def varied(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.sqrt(1.5 / rng.chisquare(1.5, size=(count, 8)))


def learned(seed: int, chance: float = 0.5, count: int = 800) -> np.ndarray:
    """Seeds that learn all or nothing."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((count, 8, 3)) < chance, 0.99, 0.02) + 0.005 * rng.normal(size=(count, 8, 3))


EQUAL, ONE_WILD = [1.0] * 8, [20.0] + [1.0] * 7


def only(monkeypatch: pytest.MonkeyPatch, prior_df: float) -> None:
    monkeypatch.setattr(model, "PRIOR_DF", np.array([prior_df]))


def test_the_prior_is_the_likeliest_by_a_general_optimizer_and_by_quadrature():
    """Rows have different numbers of seeds, one shows no scatter. Laplace's integral is right within a tenth."""
    own, df = np.array([0.2, 0.01, 3.0, 0.7, 25.0, 0.4]), np.array([2.0, 2.0, 3.0, 1.0, 4.0, 2.0])

    def log_likelihood(log_prior: float, d0: float) -> float:
        return float((scipy.stats.f.logpdf(own / math.exp(log_prior), df, d0) - log_prior).sum())

    found, weights = fit_prior(np.array([*own, 0.0]), np.array([*df, 2.0])), []
    for d0, log_variance in zip(found.df, found.log_variance, strict=True):
        best = optimize.minimize_scalar(lambda x, d0=d0: -log_likelihood(x, d0), bounds=(-8, 8), method="bounded")
        assert log_variance == pytest.approx(best.x, abs=1e-3)
        weights.append(integrate.quad(lambda x, d0=d0: math.exp(log_likelihood(x, d0)), -12, 12, limit=200)[0])
    assert found.weight == pytest.approx(np.array(weights) / sum(weights), rel=0.1, abs=1e-4)


def test_the_prior_of_many_rows_is_the_one_that_was_planted():
    rng = np.random.default_rng(1)
    variances = 0.25 * 4 / rng.chisquare(4, size=4000)
    found = fit_prior(variances * rng.chisquare(2, size=4000) / 2, np.full(4000, 2.0))
    assert found.df[found.weight.argmax()] == 4
    assert math.exp(found.log_variance[found.weight.argmax()]) == pytest.approx(0.25, rel=0.05)


def test_two_rows_are_behrens_and_fishers_test_and_each_interval_its_plain_t():
    """By quadrature of two t densities; the simulated p has a standard error of .005 at most."""
    rng = np.random.default_rng(2)
    for _ in range(5):
        a, b = rng.normal(size=5), 3 * rng.normal(size=3) + 4
        found, (x, y) = judge(np.array([a, [*b, math.nan, math.nan]])), (scipy.stats.sem(a), scipy.stats.sem(b))
        gap = abs(a.mean() - b.mean())
        tail = integrate.quad(
            lambda z, x=x, y=y, gap=gap: scipy.stats.t.pdf(z, 4) * scipy.stats.t.sf((gap - x * z) / y, 2), -60, 60
        )[0]
        assert found.p[0] == pytest.approx(2 * tail, abs=0.015)
        for half, row in zip(found.half, (a, b), strict=True):
            low, high = scipy.stats.t.interval(0.95, len(row) - 1, row.mean(), scipy.stats.sem(row))
            assert half == pytest.approx((high - low) / 2)


def test_with_one_variance_for_all_the_surest_pair_has_tukeys_p(monkeypatch: pytest.MonkeyPatch):
    only(monkeypatch, 1e9)
    y = np.random.default_rng(3).normal(size=(6, 5)) + 0.45 * np.arange(6)[:, None]
    assert judge(y).p.min() == pytest.approx(scipy.stats.tukey_hsd(*y).pvalue.min(), abs=0.01)
    pooled = y.var(axis=1, ddof=1).mean()
    assert math.exp(fit_prior(y.var(axis=1, ddof=1), np.full(6, 4.0)).log_variance[0]) == pytest.approx(pooled)


def test_steps_ask_less_of_what_is_left():
    """Against the definition: of the pairs with as small a t or smaller, the largest of each draw."""
    rng = np.random.default_rng(4)
    errors, scale, t = rng.normal(size=(5000, 4)), np.full(6, math.sqrt(2)), np.array([0.5, 3.1, 2.0, 2.2, 1.0, 2.6])
    found, critical = model._adjusted(t, errors, scale, 0.05)
    first, second = np.triu_indices(4, 1)
    drawn = np.abs(errors[:, first] - errors[:, second]) / scale
    plain = [float((drawn[:, t <= own].max(1) >= own).mean()) for own in t]
    assert found.tolist() == pytest.approx(
        [max(p for p, other in zip(plain, t, strict=True) if other >= own) for own in t]
    )
    assert critical == pytest.approx(scipy.stats.studentized_range.ppf(0.95, 4, math.inf) / math.sqrt(2), rel=0.02)


@pytest.mark.parametrize(
    ("world", "most"),
    [(boards(5, EQUAL), 0.05), (boards(5, varied), 0.06), (boards(5, ONE_WILD), 0.07)]
    + [(learned(5, chance), 0.05) for chance in (0.5, 1 / 3, 0.9)],
)
def test_false_separations(world: np.ndarray, most: float):
    """The standard error is .008."""
    assert apart(world).any(1).mean() <= most + 0.01


def test_false_separations_where_groups_do_differ():
    """Two groups of four, far apart: the steps must not separate within a group."""
    y = boards(6, EQUAL, count=500)
    y[:, 4:] += 100
    within, found = (FIRST < 4) == (SECOND < 4), apart(y)
    assert found[:, ~within].all()
    assert found[:, within].any(1).mean() <= 0.06


def test_the_simulation_sees_a_guard_that_is_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model, "_jumps", lambda scores, one, other: False)
    assert apart(learned(5, count=200)).any(1).mean() > 0.2


@pytest.mark.parametrize(("spread", "size", "least"), [(EQUAL, 4, 0.76), (varied, 10, 0.70), (ONE_WILD, 10, 0.95)])
def test_power(spread, size: float, least: float):
    """The last of eight rows is better by so many standard deviations; the first may be wild."""
    y = boards(8, spread, count=400)
    y[:, 7] += size
    assert apart(y)[:, (SECOND == 7) & (FIRST > 0)].mean() >= least


def test_the_printed_difference_is_found_on_a_fresh_board():
    y = boards(9, EQUAL, n=6, count=400)
    fresh = y[:, :, 3:]
    fresh[:, 0] += np.array([verdict.smallest for verdict in judged(y[:, :, :3])])[:, None]
    assert 0.75 < apart(fresh)[:, :7].mean() < 0.95


@pytest.mark.parametrize("seed", range(6))
def test_many_rows_come_out_as_they_would_pair_by_pair(seed, monkeypatch):
    """Rows of unequal scatter at levels some of which are near; one without scatter, a seed missing."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(30, 4)) * varied(rng, 4)[0, :1] * np.exp(rng.normal(size=(30, 1)))
    y += 4 * rng.integers(0, 4, size=(30, 1))
    y[0], y[1, 0] = 2.5, math.nan
    one_by_one = judge(y, draws=2000)
    monkeypatch.setattr(model, "MANY", 0)
    in_steps = judge(y, draws=2000)
    assert 0 < in_steps.apart.sum() < len(in_steps.apart)
    assert (in_steps.apart == one_by_one.apart).all()
    assert (in_steps.jumped == one_by_one.jumped).all()
    assert in_steps.smallest == pytest.approx(one_by_one.smallest, rel=1e-12)
    assert (in_steps.p >= one_by_one.p)[one_by_one.p <= 0.035].all()


def test_rows_that_jump_by_the_definition():
    rng = np.random.default_rng(0)
    scores = rng.choice([0.0, 0.02, 0.1, 1.0, 1.06], size=(40, 3)) + 0.01 * rng.normal(size=(40, 3))
    scores[rng.random((40, 3)) < 0.1] = math.nan
    scores = scores[(~np.isnan(scores)).sum(1) > 1]
    one, other = np.nanmean(scores, axis=1)[np.array(np.triu_indices(len(scores), 1))]

    def jumps(a, b):
        reach = abs(a - b) / 8
        rows = [[x for x in row if not math.isnan(x)] for row in scores]
        at = [[(abs(x - a) <= reach, abs(x - b) <= reach) for x in row] for row in rows]
        return any(all(p or q for p, q in row) and any(p for p, _ in row) and any(q for _, q in row) for row in at)

    expected = np.array([jumps(a, b) for a, b in zip(one, other, strict=True)])
    assert 0 < expected.sum() < len(expected)
    assert (model._jumps(scores, one, other) == expected).all()
