"""Statistics over tasks against hand arithmetic, the tables of Demšar (2006), SciPy, and plain loops."""

import math
import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats import aggregate as over

INF = math.inf
SCORES = st.floats(0, 2, allow_subnormal=False)
RUNS = st.lists(st.lists(SCORES, max_size=5), min_size=2, max_size=5)


def test_a_scale_has_its_ends_at_0_and_1_whichever_is_larger():
    assert over.normalised([8.0, 5.0, 2.0, 0.5, 9.0], zero=8.0, one=2.0) == [0, 0.5, 1, 1.25, 0]
    assert over.normalised([0.1, 0.5, 0.9], zero=0.1, one=0.9) == pytest.approx([0, 0.5, 1])
    with pytest.raises(ValueError, match="two ends"):
        over.normalised([1.0], zero=1.0, one=1.0)


def test_iqm_by_hand():
    # two tasks of 4: eight runs of weight 1/8, of which the middle four are .3 .4 .5 .6
    assert over.iqm([[0.1, 0.3, 0.5, 0.7], [0.2, 0.4, 0.6, 9.0]]) == pytest.approx(0.45)
    # three runs: of the middle half, 1/3 is the middle run and 1/12 each of its neighbours: (2 + 4·3 + 7) / 6
    assert over.iqm([[2.0, 3.0, 7.0]]) == pytest.approx(21 / 6)
    # a missing task is one run of 0 that weighs as much as the other task's four
    assert over.iqm([[], [1.0, 1.0, 1.0, 1.0]]) == pytest.approx(0.5)
    assert over.iqm([[], [], [], [1.0]]) == 0
    # a quarter that is missing is set aside, and only the mean tells
    runs = [[], [1.0, 1.0], [1.0], [1.0]]
    assert (over.iqm(runs), over.mean(runs)) == (1, 0.75)
    assert over.mean([[1.0, 3.0], [], [4.0]]) == 2


def looped_iqm(runs):
    """Every run as often as its weight says, in whole numbers, then trimmed by SciPy."""
    counts = [len(task) or 1 for task in runs]
    whole = 4 * math.lcm(*counts)
    flat = [v for task, n in zip(runs, counts, strict=True) for v in (task or [0.0]) for _ in range(whole // n)]
    return scipy.stats.trim_mean(flat, 0.25)


@settings(max_examples=60, deadline=None)
@given(RUNS)
def test_iqm_and_profile_against_loops(runs):
    assert over.iqm(runs) == pytest.approx(looped_iqm(runs), abs=1e-12)
    for tau in (0.0, 0.5, 1.0):
        share = sum(sum(v >= tau for v in task or [0.0]) / (len(task) or 1) for task in runs) / len(runs)
        assert over.profile(runs, [tau]) == pytest.approx([share])


def test_bootstrap_knows_two_runs_exactly():
    """One task with runs 0 and 1: the resampled IQM is 0, ½ or 1 in ¼, ½ and ¼ of draws."""
    assert over.iqm_interval([[0.0, 1.0]]) == (0, 1)
    assert over.iqm_interval([[0.0, 1.0]], level=0.4) == (0, 1)
    assert over.iqm_interval([[0.0, 1.0]], level=0.6) == (0.5, 0.5)
    assert over.iqm_interval([[0.3], [0.5], []]) is None


def test_bootstrap_against_a_plain_loop():
    runs = [[0.1, 0.4, 0.5], [0.7, 0.8, 1.2, 1.3], []]
    draw = random.Random(3)
    loop = sorted(looped_iqm([[draw.choice(t) for _ in t] for t in runs]) for _ in range(3000))
    assert over.iqm_interval(runs) == pytest.approx((loop[75], loop[2925]), abs=0.02)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.integers(0, 4), min_size=1, max_size=5)] * 2), min_size=1, max_size=4))
def test_improvement_is_mann_whitney(tasks):
    first, second = zip(*tasks, strict=True)
    u = [scipy.stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in tasks]
    assert over.improvement(first, second) == pytest.approx(np.mean(u))
    assert over.improvement(second, first) == pytest.approx(1 - np.mean(u))
    there, back = over.improvement_interval(first, second), over.improvement_interval(second, first)
    assert (there is None) == (back is None)
    if there and back:
        assert there == pytest.approx((1 - back[1], 1 - back[0]))


def test_improvement_by_hand_and_with_nothing_there():
    # 3 of 4 pairs won and one tied; lost without a score; half where neither has one
    assert over.improvement([[2, 3], [], []], [[1, 2], [5], []]) == pytest.approx((3.5 / 4 + 0 + 0.5) / 3)
    assert over.improvement([[1.0]], [[]]) == over.improvement([[-1.0]], [[]]) == 1
    assert over.improvement_interval([[1.0]], [[2.0]]) is None
    assert over.improvement_interval([[1.0, 3.0]], [[2.0]]) == (0, 1)


def test_ranks_put_what_is_missing_last():
    found = over.ranks([[0.9, 0.5, -INF, 0.5], [-INF, 1.0, -INF, 2.0]])
    assert found.tolist() == [[1, 2.5, 4, 2.5], [3.5, 2, 3.5, 1]]


def test_friedman_is_scipys_and_demsars():
    means = np.random.default_rng(1).normal(size=(6, 4)).round(1)
    expected = scipy.stats.friedmanchisquare(*means.T)
    assert over.friedman(over.ranks(means)) == pytest.approx((expected.statistic, expected.pvalue))
    # four ranks in 3 tasks by hand: 12/(3·4·5)·Σ(rank sums)² − 3·3·5 with sums 3, 6, 9, 12
    ranked = over.ranks([[4, 3, 2, 1]] * 3)
    assert over.friedman(ranked)[0] == pytest.approx(12 / 60 * (9 + 36 + 81 + 144) - 45)
    assert over.friedman(over.ranks([[1, 1, 1], [2, 2, 2]])) is None
    assert over.friedman(over.ranks([[1, 2], [2, 1]])) is None


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (7, 2.949), (10, 3.164)])
def test_critical_values_are_those_of_demsars_table_5_and_example(k, q):
    assert over.critical_difference(k, 1) / math.sqrt(k * (k + 1) / 6) == pytest.approx(q, abs=1e-3)
    assert over.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert over.critical_difference(4, 14, level=0.10) == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize("k", [2, 3, 5, 8, 20, 45])
def test_the_fewest_tasks_that_can_tell(k):
    n = over.tasks_to_tell(k)
    assert over.critical_difference(k, n) < k - 1
    assert n == 1 or over.critical_difference(k, n - 1) >= k - 1


def test_bars_of_the_diagram():
    assert over.groups([1.0, 1.5, 2.2, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert over.groups([1.0, 1.5, 2.0, 4.0], 1.0) == [(0, 2)]
    assert over.groups([1.0, 3.0], 1.0) == []
    assert over.groups([1.0, 3.0, 3.0], INF) == [(0, 2)]


def test_a_target_counts_from_where_it_was_seen_and_runs_that_never_arrive_take_part():
    points = [(30.0, 2.4), (10.0, 3.0), (20.0, 2.6)]
    for target, higher, time in ((2.6, False, 20), (2.5, False, 30), (2.0, False, INF), (2.6, True, 10)):
        assert over.time_to_target(points, target, higher_is_better=higher) == time
    assert over.time_to_target([], 2.6, higher_is_better=True) == INF
    for times, median in (([3.0, INF, 5.0], 5), ([3.0, INF, INF], INF), ([3.0, INF], INF), ([], INF)):
        assert over.median_time(times) == median


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7), st.booleans())
def test_the_median_run_reaches_its_own_target(finals, higher):
    target = over.middle_final(finals, higher_is_better=higher)
    assert target in finals
    times = [over.time_to_target([(1.0, v)], target, higher_is_better=higher) for v in finals]
    assert over.median_time(times) == 1
    if len(finals) % 2:
        assert target == float(np.median(finals))


def test_time_scores_by_hand():
    # ratios ½, 1, 2, ∞ of four tasks: (3.5 + 3 + 2 + 0) / 3 / 4
    assert over.time_score([0.5, 1.0, 2.0, INF]) == pytest.approx(8.5 / 12)
    assert over.time_score([1.0, 1.0]) == 1
    assert over.time_score([4.0, 5.0]) == 0
    assert over.time_ratio(3.0, 2.0) == 1.5
    assert over.time_ratio(3.0, INF) == 0
    assert over.time_ratio(INF, INF) == INF
    times = {"a": [10.0, 4.0, INF], "b": [20.0, 2.0, INF], "c": [INF, 2.0, INF]}
    assert over.ratios_to_best(times) == {"a": [1, 2, INF], "b": [2, 1, INF], "c": [INF, 1, INF]}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.floats(1, 6), st.just(INF)), min_size=1, max_size=6))
def test_the_score_is_the_area_under_the_profile(ratios):
    """AlgoPerf's own form: the integral of ρ from 1 to 4, over 3; by the midpoint rule."""
    taus = 1 + 3 * (np.arange(6000) + 0.5) / 6000
    assert over.time_score(ratios) == pytest.approx(over.time_profile(ratios, taus).mean(), abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(RUNS, st.randoms(use_true_random=False))
def test_order_of_tasks_and_seeds_moves_no_interval(runs, shuffler):
    moved = [shuffler.sample(task, len(task)) for task in shuffler.sample(runs, len(runs))]
    assert over.iqm(moved) == pytest.approx(over.iqm(runs))
    assert over.iqm_interval(moved) == pytest.approx(over.iqm_interval(runs))


def test_the_worst_that_runs_allow():
    assert over.pessimistic([2.0]) == 2
    # mean 2, sd 1, t(.975, 2) = 4.302653
    assert over.pessimistic([1.0, 2.0, 3.0]) == pytest.approx(2 + 4.302653 / math.sqrt(3))
    assert over.pessimistic([2.0, 2.0]) == 2
