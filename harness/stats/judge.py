"""The model of one task on arrays: which pairs of architectures differ, for one board or thousands at once.

y[a, s] = mean[a] + effect[s] + noise: a seed (data order, initialisation) is a block that all architectures share, and
the noise of an architecture has a spread of its own. docs/statistics.md derives the rule and tells how it was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.stats.studentised import LEVEL, Floats, critical_ranges

Mask = NDArray[np.bool_]

OWN = 0.3
"""How much of what a pair's own variance exceeds the board's by is added to it."""
GAP = 0.02
"""How rarely equal spreads leave, between two architectures, as wide a gap as must lie below one that is left out."""
SURE = 0.001
"""The same, where the rest may scatter unevenly."""
EVEN = 0.1
"""Else the most excess unevenness (see `Spread.excess`) of the rest when an architecture is left out."""


def share(architectures: int) -> float:
    """The part of the level at which equal spreads are tested; the rest is for spreads that differ.

    Two are a paired t test, which unequal spreads do not disturb; the fewer more there are, the less can be seen of
    how uneven the spreads are. The numbers are from simulation: docs/statistics.md.
    """
    return 1.0 if architectures < 3 else min(0.7, 0.3 + 0.05 * architectures)


@dataclass(frozen=True, slots=True)
class Design:
    """Least squares of the block design for one pattern of scores, over architectures with two seeds or more."""

    present: Mask
    """(architectures, seeds)."""
    counts: Floats
    """Scores of each architecture."""
    solve: Floats
    """(architectures + seeds, scores): scores to terms, the minimum-norm solution."""
    fitted: Floats
    """(scores, scores): scores to fitted scores."""
    freedom: Floats
    """Degrees of freedom of each architecture's residuals; (k − 1)(n − 1)/k where nothing is missing."""
    df: float
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    """The pairs, as positions of architectures."""
    contrast: Floats
    """Variance of each pair's difference over that of the noise, 2/n where nothing is missing; ∞ where no chain of
    shared seeds connects the two."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What the residuals say about the noise; the first axis is boards."""

    terms: Floats
    """(boards, architectures): the architectures' terms."""
    own: Floats
    """(boards, architectures): variance of each architecture's noise."""
    variance: Floats
    """(boards,): the board's variance, Box's g: pooled times uneven."""
    df: Floats
    """(boards,): effective degrees of freedom."""
    excess: Floats
    """(boards,): how uneven the spreads are: 0 as equal ones are on average, 1 if one makes all the scatter, or if it
    cannot be seen."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdicts on boards of one pattern; the first axis is boards."""

    apart: Mask
    """(boards, pairs): separated; pairs as in `Design`."""
    spread: Spread
    """Of the architectures that are not left out; `own` and `terms` of all."""
    left_out: Mask
    """(boards, architectures): scatters far more than the rest, which are judged without it."""
    usable: Mask
    """(boards,): there is scatter to judge by, more than what rounding leaves."""
    half: Floats
    """(boards, architectures): half of the 95% interval of the mean."""
    residual_df: float
    """Degrees of freedom of the residuals, (k − 1)(n − 1) where nothing is missing."""
    level: Floats
    """(boards,): chance of a false separation per board if the spreads are equal."""


@lru_cache(maxsize=512)
def _design(shape: tuple[int, int], pattern: bytes) -> Design:
    present = np.frombuffer(pattern, dtype=np.bool_).reshape(shape)
    k, n = shape
    rows, seeds = np.nonzero(present)
    X = np.zeros((len(rows), k + n))
    X[np.arange(len(rows)), rows] = 1
    if k > 1:
        X[np.arange(len(rows)), k + seeds] = 1
    inverse = np.linalg.pinv(X.T @ X, hermitian=True)
    solve = inverse @ X.T
    fitted = X @ solve
    free = 1 - np.diag(fitted)
    first, second = np.triu_indices(k, 1)
    pair = np.zeros((len(first), k + n))
    pair[np.arange(len(first)), first], pair[np.arange(len(first)), second] = 1, -1
    estimable = np.isclose(pair @ solve @ X, pair, atol=1e-8).all(1)
    return Design(
        present=present,
        counts=present.sum(1).astype(np.float64),
        solve=solve,
        fitted=fitted,
        freedom=np.bincount(rows, free, minlength=k).astype(np.float64),
        df=float(round(free.sum())),
        first=first,
        second=second,
        contrast=np.where(estimable, np.einsum("pi,ij,pj->p", pair, inverse, pair), math.inf),
    )


def design(present: Mask) -> Design:
    """The design of a pattern (architectures, seeds) of scores that are there."""
    return _design((present.shape[0], present.shape[1]), np.ascontiguousarray(present, dtype=np.bool_).tobytes())


def judge(scores: Floats, level: float = LEVEL) -> Verdict:
    """Compare all pairs. `scores` is (boards, architectures, seeds), NaN where missing, alike on all boards."""
    plan = design(~np.isnan(scores[0]))
    largest = np.nanmax(np.abs(scores), axis=(1, 2)) if scores.size else np.zeros(len(scores))
    scores = scores - np.nanmean(scores, axis=(1, 2), keepdims=True) if scores.size else scores
    boards, k, _ = scores.shape
    whole = _spread(scores, plan)
    usable = (plan.df > 0) & (whole.variance > (1e-9 * largest) ** 2)
    left_out = _left_out(scores, plan, whole) if k > 3 and plan.df > 0 else np.zeros((boards, k), dtype=np.bool_)
    any_out = left_out.any(1)
    levels = np.where(any_out, 0.5, 1.0) * level * share(k)
    few = np.where(any_out, left_out @ (plan.counts - 1), math.inf)
    limited = Spread(whole.terms, whole.own, whole.variance, np.minimum(whole.df, few), whole.excess)
    ratio, df = _ratios(limited, plan)
    half = _half_widths(limited, plan, level)
    calm = Spread(whole.terms, whole.own.copy(), whole.variance.copy(), whole.df.copy(), whole.excess)
    for out, where in _patterns(left_out):
        kept = ~out
        part = design(plan.present[kept])
        inner = _spread(scores[where][:, kept], part)
        pairs = kept[plan.first] & kept[plan.second]
        ratio[np.ix_(where, pairs)], df[np.ix_(where, pairs)] = _ratios(inner, part)
        half[np.ix_(where, kept)] = _half_widths(inner, part, level)
        calm.own[np.ix_(where, kept)] = inner.own
        calm.variance[where], calm.df[where] = inner.variance, inner.df
    ratio[~_same_direction(scores, whole.terms, plan) | ~usable[:, None]] = 0.0
    apart = _step_down(ratio, df, k, levels, plan)
    return Verdict(apart, calm, left_out, usable, half, plan.df, levels)


def _spread(scores: Floats, plan: Design) -> Spread:
    """Least squares, and how the residuals scatter (Box 1954: a sum of unequal variances as g χ²(h))."""
    k = len(plan.present)
    y = scores[:, plan.present]
    terms = (y @ plan.solve[:k].T) if k else np.zeros((len(scores), 0))
    squares = np.zeros(scores.shape)
    squares[:, plan.present] = (y - y @ plan.fitted.T) ** 2
    total = squares.sum(2)
    df = max(plan.df, 1.0)
    pooled = total.sum(1) / df
    known = plan.freedom > 1e-8
    own = np.where(known, total / np.where(known, plan.freedom, 1.0), pooled[:, None])
    if k < 3 or plan.df < 1:
        return Spread(terms, own, pooled, np.full(len(pooled), df), np.zeros(len(pooled)))
    weight = plan.freedom / df
    uneven = (own**2 @ weight) / np.maximum(pooled**2, np.finfo(float).tiny)
    equal = float(weight @ (1 + 2 / (plan.counts - 1))) / (1 + 2 / df)
    one = ((k - 1) ** 2 + 1 / (k - 1)) / k
    factor = np.maximum(uneven / equal, 1.0)
    # Residuals of three on two seeds are as uneven as their sum of zero makes them, whatever the noise.
    excess = (uneven - equal) / (one - equal) if one - equal > 1e-6 else np.ones(len(pooled))
    return Spread(terms, own, pooled * factor, df / factor**2, excess)


def _ratios(spread: Spread, plan: Design) -> tuple[Floats, Floats]:
    """Studentised differences √2 |difference|/error, and their degrees of freedom: (boards, pairs) each."""
    difference = np.abs(spread.terms[:, plan.first] - spread.terms[:, plan.second])
    own = (spread.own[:, plan.first] + spread.own[:, plan.second]) / 2
    error = np.sqrt(_guarded(spread, own) * plan.contrast / 2)
    ratio = np.where(np.isfinite(error) & (error > 0), difference / np.where(error > 0, error, 1.0), 0.0)
    two = np.minimum(plan.counts[plan.first], plan.counts[plan.second]) == 2
    return ratio, np.where(two, 1.0, np.maximum(spread.df[:, None], 1.0))


def _half_widths(spread: Spread, plan: Design, level: float) -> Floats:
    df = np.where(plan.counts == 2, 1.0, np.maximum(spread.df[:, None], 1.0))
    return stats.t.isf(level / 2, df) * np.sqrt(_guarded(spread, spread.own) / plan.counts)


def _guarded(spread: Spread, own: Floats) -> Floats:
    """The board's variance plus `OWN` of the excess over it: low scatter gains nothing, high scatter costs a little."""
    board = spread.variance[:, None]
    return board + OWN * np.maximum(own - board, 0.0)


def _left_out(scores: Floats, plan: Design, whole: Spread) -> Mask:
    """The fewest, at most a quarter, with a wide gap below them and rest that scatter evenly, or a very wide gap.

    The gap is the ratio of the least variance above it to the largest below, the rest being fitted by themselves.
    """
    boards, k, _ = scores.shape
    order = np.argsort(-whole.own, axis=1, kind="stable")
    found = np.zeros((boards, k), dtype=np.bool_)
    for count in range(1, min(k // 4, k - 3) + 1):
        tried = np.zeros((boards, k), dtype=np.bool_)
        np.put_along_axis(tried, order[:, :count], True, axis=1)
        tried[found.any(1)] = False
        for out, where in _patterns(tried):
            found[np.ix_(where, out)] = _gapes(scores[where], plan, out, whole.variance[where])[:, None]
    return found


def _gapes(scores: Floats, plan: Design, out: Mask, variance: Floats) -> Mask:
    kept = ~out
    part = design(plan.present[kept])
    if part.df < 1:
        return np.zeros(len(scores), dtype=np.bool_)
    inner = _spread(scores[:, kept], part)
    y = scores[:, kept][:, part.present]
    effects = (y @ part.solve.T)[:, len(part.present) :]
    wide = np.ones(len(scores), dtype=np.bool_)
    sure = wide.copy()
    for a in np.nonzero(out)[0]:
        shared = plan.present[a] & plan.present[kept].any(0)
        if (n := int(shared.sum())) < 2:
            return np.zeros(len(scores), dtype=np.bool_)
        alone = (scores[:, a] - effects)[:, shared].var(1, ddof=1) / (1 + 1 / len(part.present))
        df = np.maximum(part.counts - 1, 1)
        wide &= alone > (inner.own * stats.f.isf(GAP, n - 1, df)).max(1)
        sure &= alone > (inner.own * stats.f.isf(SURE, n - 1, df)).max(1)
    return (inner.variance > 1e-18 * variance) & (sure | (wide & (inner.excess <= EVEN)))


def _same_direction(scores: Floats, terms: Floats, plan: Design) -> Mask:
    """Whether a pair's difference within blocks has the sign of the difference of its plain means."""
    means = np.where(plan.present, scores, 0.0).sum(2) / plan.counts
    within = terms[:, plan.first] - terms[:, plan.second]
    return (within * (means[:, plan.first] - means[:, plan.second])) > 0


def _step_down(ratio: Floats, df: Floats, k: int, levels: Floats, plan: Design) -> Mask:
    """Separate step by step: a pair is held against as many means as may still all be equal to both.

    The first step is Tukey's test of all k. Then whoever is separated from one of the two no longer counts, and the
    pair is tried at the critical value of the fewer means that are left, until nothing changes. While no separation is
    false, a group of p equal architectures is held against p means or more, so its first false one has at most the
    chance of a range of p, at Welsch's level 1 − (1 − level)^(p/k); over all groups that is at most `level`.
    """
    apart = np.zeros(ratio.shape, dtype=np.bool_)
    size = np.full(ratio.shape, k)
    while True:
        fresh = apart.copy()
        for full in np.unique(levels):
            for p in np.unique(size[~apart]):
                here = (size == p) & ~apart & (levels == full)[:, None]
                fresh[here] = ratio[here] > _critical(int(p), k, float(full), df[here])
        if (fresh == apart).all():
            return apart
        apart = fresh
        tied = np.ones((len(ratio), k, k))
        tied[:, plan.first, plan.second] = tied[:, plan.second, plan.first] = ~apart
        size = np.rint((tied @ tied)[:, plan.first, plan.second]).astype(int)  # of tied pairs; includes the two


def _critical(p: int, k: int, full: float, df: Floats) -> Floats:
    """Critical value of p means of k: not less than that of fewer means, nor more than Tukey's for all k.

    Welsch's levels can ask more of fewer means: of k − 2 than of k − 1, and of any with few degrees of freedom.
    """

    def at(m: int, df: Floats) -> Floats:
        return critical_ranges(m, df, full if m >= k - 1 else 1 - (1 - full) ** (m / k))

    if p == k:
        return at(k, df)
    found = np.maximum(at(p, df), at(max(p - 1, 2), df))
    if (few := df < 9).any():
        found[few] = np.max([at(m, df[few]) for m in range(2, p + 1)], axis=0)
    return np.minimum(found, at(k, df))


def _patterns(chosen: Mask) -> list[tuple[Mask, NDArray[np.intp]]]:
    """Distinct rows that choose anything, each with the boards that have it."""
    active = np.nonzero(chosen.any(1))[0]
    rows, which = np.unique(chosen[active], axis=0, return_inverse=True)
    return [(row, active[which.reshape(-1) == i]) for i, row in enumerate(rows)]
