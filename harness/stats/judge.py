"""Which architectures (rows) of one task differ, on an array of scores.

The scores of a row are normal about its mean with a variance of its own. Few seeds tell little of a variance, so all
rows of the board tell of each (Smyth 2004), and all pairs are judged at once by draws from what is then known of the
errors of all means. docs/statistics.md has the formulas, what they were measured to do, and where they err.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEVEL = 0.05
PLANNED = 0.90
"""The power that the smallest difference is planned for; a repetition, which estimates its errors anew, has .80."""
NOMINAL = 0.7
"""The part of the level that pairs are tried at where variances are moderated: with all of it .075 of small boards err
where variances differ as much as those of published boards do."""
DRAWS = 10_000
SEED = 20040101
MANY = 80
"""From this many rows on, the p values of pairs that are separated are upper bounds: so they take one pass, not one a
pair. Which pairs are separated is the same."""
NEAR = 1 / 8
"""A seed lies at a row's level if it is this near to it, as a fraction of the gap to the other row of the pair."""
PRIOR_DF = np.array([0.5, 1, 2, 4, 8, 16, 32, 1e6])
"""d₀, from variances that have little to do with each other to one that all rows share; all equally probable."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What all rows say about variances, d₀ by d₀: 1/σ² is distributed as χ²/(d₀ s₀²)."""

    df: Floats
    """The d₀."""
    weight: Floats
    """How probable each d₀ is; they add up to 1."""
    log_variance: Floats
    """The likeliest log s₀²."""
    log_error: Floats
    """Its standard error."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the scores say; pairs are those of `numpy.triu_indices`."""

    p: Floats
    """(pairs,): chance of errors of means so large anywhere among these and all pairs that are less sure."""
    apart: Mask
    """(pairs,): separated."""
    jumped: Mask
    """(pairs,): not separated only because the seeds of a third row are found at both levels."""
    half: Floats
    """(rows,): half of the 95% interval of the mean; 0 where nothing is known of the scatter."""
    smallest: float
    """What the middle pair must differ by to be separated, as the first one, in 80% of repetitions."""
    variance: float
    """The middle row's variance from seed to seed."""


def judge(scores: Floats, level: float = LEVEL, draws: int = DRAWS, seed: int = SEED) -> Verdict:
    """Compare all pairs of rows. `scores` is (rows, seeds), NaN where missing; each row has two or more.

    `level` is that of pairs; intervals are of 95% whatever it is.
    """
    counts, means = (~np.isnan(scores)).sum(1), np.nanmean(scores, axis=1)
    prior, d0, squares, all_df, variances, errors = _drawn(scores, draws, np.random.default_rng(seed))
    quantiles = special.stdtrit(prior.df[:, None] + counts - 1, 1 - LEVEL / 2)
    half = (quantiles[d0] * np.sqrt(squares / all_df / counts)).mean(0)
    with np.errstate(divide="ignore"):
        moderated = 1 / (1 / variances).mean(0)
    first, second = np.triu_indices(len(scores), 1)
    scale = np.sqrt((moderated / counts)[first] + (moderated / counts)[second])
    scale[scale == 0] = np.inf
    level *= NOMINAL if len(prior.df) > 1 else 1.0
    t = np.abs(means[first] - means[second]) / scale
    if len(scores) <= MANY:
        p, critical = _adjusted(t, errors, scale, level)
    else:
        p, critical = _adjusted_in_steps(t, errors, scale, moderated / counts, level)
    exact = len(first) * 2 / special.binom(counts[first] + counts[second], counts[first])
    apart = p <= level
    jumped = apart & (exact > level)
    jumped[jumped] = _jumps(scores, means[first[jumped]], means[second[jumped]])
    middle = np.argsort(scale)[len(scale) // 2 :][:1]
    spread = np.quantile(errors[:, first[middle]] - errors[:, second[middle]], PLANNED, axis=0)
    with np.errstate(invalid="ignore"):  # no scatter, no scale
        smallest = [float(value) for value in critical * scale[middle] + spread if math.isfinite(value)]
    variance = float(np.median(moderated)) if len(scores) else 0.0
    return Verdict(p, apart & ~jumped, jumped, half, next(iter(smallest), 0.0), variance)


def errors_of_means(scores: Floats, draws: int, seed: int = SEED) -> Floats:
    """(draws, rows): what the means of rows may be off by, as `judge` has it. Each row has two seeds or more."""
    return _drawn(scores, draws, np.random.default_rng(seed)).errors


class _Drawn(NamedTuple):
    """What is known of the variances of rows, and draws from it, (draws, rows)."""

    prior: Prior
    d0: NDArray[np.intp]
    """(draws,): the place of each draw's d₀ among the prior's."""
    squares: Floats
    """d₀ s₀² + d s²."""
    df: Floats
    """d₀ + d."""
    variances: Floats
    errors: Floats
    """Of means."""


def _drawn(scores: Floats, draws: int, rng: np.random.Generator) -> _Drawn:
    counts = (~np.isnan(scores)).sum(1)
    own, df = np.nanvar(scores, axis=1, ddof=1), counts - 1.0
    own[own <= (1e-9 * np.nanmax(np.abs(scores), initial=0.0)) ** 2] = 0.0  # rounding
    prior = fit_prior(own, df)
    d0 = np.searchsorted(np.cumsum(prior.weight)[:-1], (np.arange(draws) + 0.5) / draws)
    s0 = np.exp(prior.log_variance[d0] + prior.log_error[d0] * rng.normal(size=draws))
    squares, all_df = (prior.df[d0] * s0)[:, None] + df * own, prior.df[d0][:, None] + df
    variances = squares / rng.chisquare(all_df)
    return _Drawn(prior, d0, squares, all_df, variances, rng.normal(size=variances.shape) * np.sqrt(variances / counts))


def fit_prior(own: Floats, df: Floats) -> Prior:
    """s₀² by maximum likelihood for each d₀, and each d₀ by its likelihood, s₀² integrated out by Laplace's method.

    s²/s₀² is F(d, d₀) distributed. Rows without scatter, which rounding makes, say nothing.
    """
    own, df = own[own > 0], df[own > 0]
    if len(own) < 3:  # too few to tell how variances vary
        return Prior(np.array([1e-9]), np.ones(1), np.full(1, -math.inf), np.zeros(1))
    d0, log_variance = PRIOR_DF[:, None], np.full(len(PRIOR_DF), np.log(own).mean())
    curvature = np.ones(len(PRIOR_DF))
    for _ in range(12):  # Newton's method
        share = special.expit(log_variance[:, None] - np.log(df * own / d0))  # of the prior in d₀ s₀² + d s²
        slope = (d0 / 2 - (d0 + df) / 2 * share).sum(1)
        curvature = np.maximum(((d0 + df) / 2 * share * (1 - share)).sum(1), 1e-9)
        log_variance = log_variance + np.clip(slope / curvature, -2, 2)
    log_ratio = np.log(df * own / d0) - log_variance[:, None]
    density = df / 2 * log_ratio - (d0 + df) / 2 * np.log1p(np.exp(log_ratio)) - special.betaln(df / 2, d0 / 2)
    return Prior(PRIOR_DF, special.softmax(density.sum(1) - np.log(curvature) / 2), log_variance, curvature**-0.5)


def _adjusted(t: Floats, errors: Floats, scale: Floats, level: float) -> tuple[Floats, float]:
    """Step-down p values of all pairs (Westfall and Young 1993, algorithm 2.8), and the first step's critical value.

    The p value of a pair is the chance that errors alone make as large a t in it or in a pair with a smaller t, and no
    less than that of a pair with a larger t.
    """
    first, second = np.triu_indices(errors.shape[1], 1)
    by_row, largest, above = np.ascontiguousarray(errors.T), np.zeros(len(errors)), np.zeros(len(t))
    order = np.argsort(-t, kind="stable")
    for pair in order[::-1]:
        np.maximum(largest, np.abs(by_row[first[pair]] - by_row[second[pair]]) / scale[pair], out=largest)
        above[pair] = np.count_nonzero(largest >= t[pair])
    p = np.empty(len(t))
    p[order] = np.maximum.accumulate(above[order] / len(errors))
    return p, float(np.quantile(largest, 1 - level))


def _adjusted_in_steps(
    t: Floats, errors: Floats, scale: Floats, variances: Floats, level: float
) -> tuple[Floats, float]:
    """The same as `_adjusted`, with all pairs that are sure at once in one step; `variances` are those of the means.

    The p value of a separated pair is the one of its step: at most the level, as the true one, and no smaller.
    """
    rows = errors.shape[1]
    first, second = np.triu_indices(rows, 1)
    scales = np.full((rows, rows), np.inf)
    scales[first, second] = scales[second, first] = scale
    z2 = np.divide(errors**2, variances, out=np.zeros_like(errors), where=variances > 0)
    by_size = np.argsort(-z2, axis=1)
    z2 = np.pad(np.take_along_axis(z2, by_size, axis=1), ((0, 0), (0, 2)))
    p, left, criticals = np.ones(len(t)), np.arange(len(t)), []
    while len(left):
        largest = np.sort(_largest(errors, scales, z2, by_size))
        criticals.append(float(np.quantile(largest, 1 - level)))
        p[left] = (len(largest) - np.searchsorted(largest, t[left])) / len(largest)
        sure = left[p[left] <= level]
        if not len(sure):
            break
        left = left[p[left] > level]
        scales[first[sure], second[sure]] = scales[second[sure], first[sure]] = np.inf
    return p, criticals[0]


def _largest(errors: Floats, scales: Floats, z2: Floats, by_size: NDArray[np.intp]) -> Floats:
    """The largest |difference| / scale of any two rows in each draw; `scales` is (rows, rows), ∞ for pairs left out.

    A pair's is at most √(z₁² + z₂²) with z² = error²/variance, so rows are taken by their z until no two of the others
    can reach what was found. `by_size` are the rows of each draw by `z2`, the largest first.
    """
    largest, open_ = np.zeros(len(errors)), np.arange(len(errors))
    for k in range(errors.shape[1]):
        row = by_size[open_, k]
        t = np.abs(errors[open_] - errors[open_, row][:, None]) / scales[row]
        largest[open_] = np.maximum(largest[open_], t.max(axis=1))
        reach = z2[open_, k + 1] + z2[open_, k + 2]
        open_ = open_[reach * (1 + 1e-9) > largest[open_] ** 2]
        if not len(open_):
            break
    return largest


def _jumps(scores: Floats, one: Floats, other: Floats) -> Mask:
    """Whether a row jumps between a pair's two levels: each seed is found at the one or the other, and both are met."""
    low, high, gap = np.minimum(one, other), np.maximum(one, other), np.abs(one - other)
    found, by_low = np.zeros(len(one), dtype=bool), np.argsort(low)
    ascending = low[by_low]
    for row in scores:
        seeds = row[~np.isnan(row)]
        widest = np.ptp(seeds) / (
            1 - 2 * NEAR
        )  # the gap of levels that its lowest and its highest seed are both near to
        first, last = np.searchsorted(ascending, seeds.min() + np.array([-1, 1]) * widest * NEAR * (1 + 1e-9))
        pairs = by_low[first:last]
        ends = np.maximum(np.abs(seeds.min() - low[pairs]), np.abs(seeds.max() - high[pairs]))
        pairs = pairs[ends <= NEAR * gap[pairs]]
        away = np.minimum(np.abs(seeds - low[pairs, None]), np.abs(seeds - high[pairs, None]))
        found[pairs] |= (away <= NEAR * gap[pairs, None]).all(axis=1)
    return found
