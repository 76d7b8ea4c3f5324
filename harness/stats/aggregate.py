"""What scores over several tasks say: normalised scores, ranks, probabilities of improvement, and time to target.

An architecture's runs are `Runs`: one sequence of scores, one score a seed, for each task, and every task weighs the
same however many seeds it has. A task without a score is an empty sequence, never left out. It counts as normalised
score 0 (`iqm`, `mean`, `profile`), as worse than any run (`improvement`), as a share of the last places (`ranks`), and
as time ∞ (`time_score`).

Intervals are stratified bootstraps over seeds: every task's seeds are drawn anew, the tasks stay. They say how far
other seeds would move a number, not other tasks, and they are too narrow at few seeds: in simulation (normal scores of
equal spread, 1000 repetitions) the 95% interval of `iqm` covers its value in .76 of cases at 3 seeds, .87 at 5 and .90
at 10 over 3 tasks, and in .86, .89 and .94 over 10 tasks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from harness.stats.judge import LEVEL

Runs = Sequence[Sequence[float]]
"""Scores of one architecture, task by task; no scores where it has none."""
Floats = NDArray[np.float64]
Seeds = NDArray[np.int64]
Interval = tuple[float, float]

RESAMPLES = 2000
SEED = 20230612
TAU = 4.0
"""How many times the time of the reference may be taken before a task counts for nothing (Dahl et al. 2023)."""


def normalised(scores: Iterable[float], zero: float, one: float) -> list[float]:
    """Scores on a scale that is 0 at `zero` and 1 at `one`, whichever of them is larger; what is below 0 counts as 0.

    The floor makes a run that is worse than the baseline no better and no worse than no run at all.

    Raises:
        ValueError: both ends are the same.
    """
    if zero == one:
        raise ValueError("a scale needs two ends that differ")
    return [max(0.0, (score - zero) / (one - zero)) for score in scores]


def pessimistic(costs: Sequence[float], level: float = LEVEL) -> float:
    """The worst that the runs of one architecture allow, smaller being better: its worst run or the upper end of the
    interval of its mean, from its own scatter alone, so that no rival moves it."""
    if len(costs) < 2:
        return max(costs)
    half = float(stats.t.ppf(1 - level / 2, len(costs) - 1) * np.std(costs, ddof=1) / math.sqrt(len(costs)))
    return max(*costs, math.fsum(costs) / len(costs) + half)


def iqm(runs: Runs) -> float:
    """Interquartile mean of normalised scores over runs and tasks (Agarwal et al. 2021, arXiv:2108.13264, section 4.3).

    The mean of the middle half of the weight; a run on the border of the quarter counts in part. The worst quarter is
    set aside, what is missing among it: so `mean` belongs beside it.
    """
    tasks = [[*task] or [0.0] for task in runs]
    return float(_iqm(np.concatenate(tasks)[None], _weights(tuple(map(len, tasks))))[0])


def mean(runs: Runs) -> float:
    """Mean of normalised scores, each task of the same weight, what is missing in full."""
    return math.fsum(math.fsum(task) / (len(task) or 1) for task in runs) / len(runs)


def iqm_interval(runs: Runs, level: float = LEVEL) -> Interval | None:
    """Percentile interval of `iqm`; None where no task has two runs."""
    if all(len(task) < 2 for task in runs):
        return None
    ordered = sorted(sorted(task) or [0.0] for task in runs)  # so that the order of tasks and seeds never matters
    sizes = tuple(map(len, ordered))
    return _percentiles(_iqm(np.concatenate(ordered)[_pooled(sizes, RESAMPLES)], _weights(sizes)), level)


def profile(runs: Runs, taus: ArrayLike) -> Floats:
    """Fraction of runs whose normalised score is at least τ, for each of `taus` (Agarwal et al. 2021, section 4.2)."""
    at = np.asarray(taus, dtype=np.float64)[:, None]
    return np.mean([(np.asarray(task or (0.0,))[None] >= at).mean(axis=1) for task in runs], axis=0)


def improvement(first: Runs, second: Runs) -> float:
    """P(first > second) averaged over tasks: Mann-Whitney U over the number of pairs, a tie is half.

    Scores are larger where better, of any scale (Agarwal et al. 2021, section 4.3).
    """
    pairs = zip(first, second, strict=True)
    return float(np.mean([_wins(_or_worst(x), _or_worst(y)).mean() for x, y in pairs]))


def improvement_interval(first: Runs, second: Runs, level: float = LEVEL) -> Interval | None:
    """Percentile interval of `improvement`; None where no task has two runs on either side."""
    pairs = sorted((_or_worst(x), _or_worst(y)) for x, y in zip(first, second, strict=True))
    if all(len(side) < 2 for pair in pairs for side in pair):
        return None
    swapped = sorted((y, x) for x, y in pairs)
    if swapped < pairs:  # one draw for both directions, so that they mirror each other
        low, high = improvement_interval(second, first, level) or (0.0, 0.0)
        return 1 - high, 1 - low
    counts = iter(_counts(tuple(len(side) for pair in pairs for side in pair), RESAMPLES))
    draws = [_resampled(_wins(x, y), next(counts), next(counts)) for x, y in pairs]
    low, high = _percentiles(np.mean(draws, axis=0), level)
    return (low, high) if swapped != pairs else ((low + 1 - high) / 2, (1 - low + high) / 2)


def ranks(means: ArrayLike) -> Floats:
    """Ranks (tasks, architectures) of means that are larger where better, 1 for the best, ties averaged.

    −∞ stands for no score: such architectures share the last places.
    """
    return stats.rankdata(-np.asarray(means, dtype=np.float64), axis=1)


def friedman(ranked: Floats) -> tuple[float, float] | None:
    """Friedman's χ², corrected for ties, and p of `ranks`; None for fewer than 3 architectures or where all tie."""
    if ranked.shape[1] < 3 or len(ranked) < 2 or (ranked == ranked[:, :1]).all():
        return None
    found = stats.friedmanchisquare(*ranked.T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(architectures: int, tasks: int, level: float = LEVEL) -> float:
    """Nemenyi's critical difference of mean ranks, q/√2 · √(k(k + 1)/6N) (Demšar 2006, JMLR 7, section 3.2.2)."""
    q = float(stats.studentized_range.ppf(1 - level, architectures, math.inf)) / math.sqrt(2)
    return q * math.sqrt(architectures * (architectures + 1) / (6 * tasks))


def tasks_to_tell(architectures: int, level: float = LEVEL) -> int:
    """The fewest tasks at which the critical difference is below k − 1, the largest that mean ranks can differ by."""
    at_one = critical_difference(architectures, 1, level)
    return math.floor((at_one / (architectures - 1)) ** 2) + 1


def groups(mean_ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """The bars of a critical-difference diagram: largest stretches (first, last) of two or more not separated.

    `mean_ranks` are in ascending order; two are separated when they differ by more than `difference`.
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(mean_ranks):
        last = max(i for i, other in enumerate(mean_ranks) if other - rank <= difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def time_to_target(points: Iterable[tuple[float, float]], target: float, *, higher_is_better: bool) -> float:
    """The meter at the first of `points` (meter, score) that is at the target or past it; ∞ where none is.

    Nothing is read between two scored points: a target counts from where it was seen.
    """
    reached = (at for at, score in points if (score >= target if higher_is_better else score <= target))
    return min(reached, default=math.inf)


def middle_final(finals: Sequence[float], *, higher_is_better: bool) -> float:
    """The final score of the median run, the worse of the two middle ones of an even number.

    So the median of these runs' own times to it is finite, which it is not for a mean that one run has raised.
    """
    return sorted(finals, reverse=higher_is_better)[len(finals) // 2]


def median_time(times: Sequence[float]) -> float:
    """Median over seeds; runs that never arrived take part as ∞, and no run at all is ∞."""
    return float(np.median(times)) if len(times) else math.inf


def time_ratio(time: float, base: float) -> float:
    """`time` in units of `base`: ∞ for one that never arrived, 0 for one that did where the base did not."""
    if math.isinf(time):
        return math.inf
    return 0.0 if math.isinf(base) else time / base if base > 0 else 1.0 if time == 0 else math.inf


def time_profile(ratios: Sequence[float], taus: ArrayLike) -> Floats:
    """ρ(τ): fraction of tasks on which the ratio of times is at most τ (Dolan and Moré 2002; Dahl et al. 2023)."""
    return (np.asarray(ratios)[None] <= np.asarray(taus, dtype=np.float64)[:, None]).mean(axis=1)


def time_score(ratios: Sequence[float], most: float = TAU) -> float:
    """Area under ρ from 0 to `most`, divided by `most` − 1.

    A task with ratio r gives (most − r)/(most − 1), and 0 from `most` on: 1 at the base's own time. Ratios to the best
    are 1 or more, and this is the AlgoPerf score, the integral of ρ from 1 (Dahl et al. 2023, arXiv:2306.07179). Ratios
    to a fixed reference may be below 1, and give up to most/(most − 1).
    """
    return math.fsum(max(0.0, most - r) for r in ratios) / (most - 1) / len(ratios)


def ratios_to_best(times: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Per architecture and task, its time over the least time of any."""
    best = [min(task) for task in zip(*times.values(), strict=True)]
    return {name: [time_ratio(t, b) for t, b in zip(own, best, strict=True)] for name, own in times.items()}


def _or_worst(task: Sequence[float]) -> list[float]:
    return sorted(task) or [-math.inf]


@lru_cache(maxsize=2)
def _choices(sizes: tuple[int, ...], draws: int) -> list[Seeds]:
    """(draws, size) places drawn with replacement, for each of several sets of seeds."""
    rng = np.random.default_rng(SEED)
    return [rng.integers(size, size=(draws, size)) for size in sizes]


@lru_cache(maxsize=2)
def _counts(sizes: tuple[int, ...], draws: int) -> list[Floats]:
    """How often each of them was drawn."""
    return [(places[:, :, None] == np.arange(places.shape[1])).sum(axis=1) * 1.0 for places in _choices(sizes, draws)]


@lru_cache(maxsize=2)
def _pooled(sizes: tuple[int, ...], draws: int) -> Seeds:
    """(draws, all runs): the places that `_choices` draws where all sets stand side by side."""
    starts = np.cumsum([0, *sizes[:-1]])
    return np.concatenate([own + start for own, start in zip(_choices(sizes, draws), starts, strict=True)], axis=1)


def _weights(sizes: Sequence[int]) -> Floats:
    """Of all runs of all tasks side by side, by which every task is as heavy."""
    return np.repeat([1 / size / len(sizes) for size in sizes], sizes)


def _iqm(values: Floats, weights: Floats) -> Floats:
    if (weights == weights[0]).all():  # no need to know whose value is where
        inside = np.diff(np.clip(np.cumsum(weights)[None], 0.25, 0.75), axis=1, prepend=0.25)
        return (np.sort(values, axis=1) * inside).sum(axis=1) / inside.sum(axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    ends = np.cumsum(weights[order], axis=1)
    inside = np.diff(np.clip(ends, 0.25, 0.75), axis=1, prepend=0.25)
    return (np.take_along_axis(values, order, axis=1) * inside).sum(axis=1) / inside.sum(axis=1)


def _wins(first: Sequence[float], second: Sequence[float]) -> Floats:
    """(n, m): 1 where a score of the first is larger than one of the second, ½ where they are equal."""
    a, b = np.asarray(first)[:, None], np.asarray(second)[None]
    return (a > b) + 0.5 * (a == b)


def _resampled(wins: Floats, first: Floats, second: Floats) -> Floats:
    """P(first > second) of every draw, by how often it has each seed of both."""
    return (first @ wins * second).sum(axis=1) / wins.size


def _percentiles(draws: Floats, level: float) -> Interval:
    low, high = np.quantile(draws, (level / 2, 1 - level / 2))
    return float(low), float(high)
