"""The model on arrays: against statsmodels and SciPy where it reduces to theirs, by simulation elsewhere."""

import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm

from harness import stats
from harness.stats import judge as model
from harness.stats.judge import design, judge

SPREADS = {
    "equal": [1.0] * 8,
    "half e": [1.0] * 4 + [math.e] * 4,
    "log-uniform": np.exp(np.random.default_rng(0).uniform(size=(4000, 8))),
    "one 20": [20.0] + [1.0] * 7,
    "one 20 of four": [20.0] + [1.0] * 3,
    "calm": [0.05] * 3 + [1.0] * 5,
    "strung out": np.geomspace(1, 20, 8),
    "fourteen, half e": [1.0] * 7 + [math.e] * 7,
}


def boards(seed: int, spread, n: int, count: int = 4000) -> np.ndarray:
    """Equal architectures that share a seed effect: (count, architectures, n)."""
    rng = np.random.default_rng(seed)
    sd = np.broadcast_to(np.asarray(spread, dtype=float), (count, np.shape(spread)[-1]))
    return rng.normal(size=(*sd.shape, n)) * sd[:, :, None] + 3 * rng.normal(size=(count, 1, n))


def false_separations(y: np.ndarray) -> float:
    return float(judge(y).apart.any(1).mean())


@pytest.mark.parametrize(
    ("means", "df", "level"), [(2, 2, 0.05), (3, 4, 0.05), (8, 14, 0.035), (14, 1, 0.03), (40, 7.5, 0.01)]
)
def test_critical_range_is_scipys(means: int, df: float, level: float):
    expected = scipy.stats.studentized_range.ppf(1 - level, means, df)
    assert stats.critical_range(means, df, level) == pytest.approx(expected, rel=2e-4)


def test_critical_ranges_never_shrink_with_the_number_of_means():
    """So that a group of equals is never held against less than its own size asks for."""
    df = np.array([1.0, 2, 4, 5.9, 8.9, 9.1, 14, 200])
    for k in (3, 4, 5, 8, 14, 20):
        steps = [model._critical(p, k, 0.05 * model.share(k), df) for p in range(2, k + 1)]
        assert (np.diff(steps, axis=0) >= 0).all()


def test_least_squares_are_statsmodels_with_seeds_missing():
    rng = np.random.default_rng(1)
    y = rng.normal(size=(1, 4, 5))
    y[0, 0, 0] = y[0, 1, 2] = y[0, 1, 3] = math.nan
    plan = design(~np.isnan(y[0]))
    rows, seeds = np.nonzero(plan.present)
    X = np.concatenate([np.eye(4)[rows], np.eye(5)[seeds][:, 1:]], axis=1)
    fit = sm.OLS(y[0][plan.present], X).fit()
    found = model._spread(y, plan)
    assert plan.df == fit.df_resid
    assert float(found.own[0] @ plan.freedom) == pytest.approx(fit.ssr)
    for pair, (i, j) in enumerate(zip(plan.first, plan.second, strict=True)):
        test = fit.t_test(np.eye(8)[i] - np.eye(8)[j])
        assert found.terms[0, i] - found.terms[0, j] == pytest.approx(float(test.effect[0]))
        assert plan.contrast[pair] * fit.mse_resid == pytest.approx(float(test.sd[0, 0]) ** 2)


def test_many_boards_at_once_are_as_one_at_a_time():
    y = boards(2, [1.0, 2.0, 1.0, 0.5, 1.0], 4, 40) + np.arange(5)[:, None]
    y[:, 0, 0] = math.nan
    plan = design(~np.isnan(y[0]))
    for table, apart in zip(y, judge(y).apart, strict=True):
        scores = {f"m{i}": dict(enumerate(row.tolist())) for i, row in enumerate(table)}
        found = {tuple(sorted(pair)) for pair in stats.compare(scores, higher_is_better=True).separated}
        assert found == {(f"m{i}", f"m{j}") for i, j in zip(plan.first[apart], plan.second[apart], strict=True)}


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("name", SPREADS)
def test_false_separations(name: str, n: int):
    """At most 5% of boards; the standard error is .0035."""
    assert false_separations(boards(3, SPREADS[name], n)) <= 0.05 + 0.005


def test_false_separations_where_groups_do_differ():
    """Two groups of four, far apart: the steps down must not separate within a group."""
    y = boards(4, SPREADS["equal"], 3)
    y[:, 4:] += 100
    plan = design(np.ones((8, 3), dtype=bool))
    within = (plan.first < 4) == (plan.second < 4)
    apart = judge(y).apart
    assert apart[:, ~within].all()
    assert apart[:, within].any(1).mean() <= 0.05


@pytest.mark.parametrize("fault", ["no room kept", "own scatter and unevenness not looked at"])
def test_the_simulation_sees_a_guard_that_is_off(fault: str, monkeypatch: pytest.MonkeyPatch):
    spread = np.geomspace(1, 20, 5) if fault == "no room kept" else SPREADS["fourteen, half e"]
    y = boards(3, spread, 3)
    assert false_separations(y) <= 0.055
    if fault == "no room kept":
        monkeypatch.setattr(model, "share", lambda k: 1.0)
        assert false_separations(y) > 0.07
    else:
        monkeypatch.setattr(model, "_guarded", lambda spread, own: np.full_like(own, 1) * _plain(y)[:, None])
        monkeypatch.setattr(model, "_left_out", lambda scores, plan, whole: np.zeros(scores.shape[:2], dtype=bool))
        assert false_separations(y) > 0.07


def _plain(y: np.ndarray) -> np.ndarray:
    """The pooled variance and nothing else."""
    residual = y - y.mean(2, keepdims=True) - y.mean(1, keepdims=True) + y.mean((1, 2), keepdims=True)
    return (residual**2).sum((1, 2)) / (y.shape[1] - 1) / (y.shape[2] - 1)


def test_power():
    """Eight architectures, three seeds, one four standard deviations better; Tukey's plain test has .88."""
    y = boards(5, SPREADS["equal"], 3)
    y[:, 0] += 4
    assert judge(y).apart[:, :7].mean() >= 0.79


@pytest.mark.parametrize(("spread", "n"), [([1.0] * 2, 3), ([1.0] * 8, 3), ([1.0] * 8, 5), (SPREADS["half e"], 3)])
def test_the_printed_difference_is_found_on_a_fresh_board(spread: list[float], n: int):
    """And more often on the board that printed it. Standard error about .02 for 400 boards."""
    y = boards(6, spread, 2 * n, 400)
    k = len(spread)
    seen = []
    for table, fresh in zip(y[:, :, :n], y[:, :, n:], strict=True):
        scores = {f"m{i}": dict(enumerate(row.tolist())) for i, row in enumerate(table)}
        size = stats.compare(scores, higher_is_better=True).smallest_difference
        fresh = fresh.copy()
        fresh[0] += size
        seen.append(judge(fresh[None]).apart[0, : k - 1].mean())
    assert 0.78 < np.mean(seen) < 0.93
