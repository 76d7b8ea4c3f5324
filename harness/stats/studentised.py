"""Points of the studentised range, fast enough to look up for every pair, and the difference a board can see.

SciPy's `studentized_range.ppf` integrates twice for every step of its search; here the inner integral is tabulated once
for each number of means and the search runs over all degrees of freedom at a time. The two agree to four figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from scipy.interpolate import PchipInterpolator

LEVEL = 0.05
PLANNED = 0.87
"""The power planned for, of which spreads that differ leave 80%."""

Floats = NDArray[np.float64]

_SPAN = np.linspace(0.0, 14.0, 701)
"""Ranges of standard normals at which the distribution of the range is tabulated."""
_INVERSE_DF = np.linspace(0.0, 1.0, 25) ** 1.5
"""Points in 1/df between which critical values are interpolated."""
_MANY = 1e6


def critical_range(architectures: int, df: float, level: float = LEVEL) -> float:
    """Upper `level` point of the studentised range of that many means; `df` of 1 or more need not be whole."""
    return float(critical_ranges(architectures, df, level))


def critical_ranges(architectures: int, df: ArrayLike, level: float = LEVEL) -> Floats:
    """`critical_range` for many degrees of freedom at once; less than one counts as one."""
    at = 1 / np.maximum(np.asarray(df, dtype=np.float64), 1.0)
    return np.exp(_log_critical(architectures, round(level, 9))(at))


def smallest_difference(variance: float, df: float, architectures: int, seeds: int, level: float = LEVEL) -> float:
    """The difference of two means that a repetition of the board separates with 80% power.

    It is K √(2 variance/seeds), with K such that Z + K s > c s′ has probability .87: c = q/√2 is the critical value, Z
    the noise of the difference, s and s′ the relative errors of the estimates of scatter on this board and on its
    repetition, both √(χ²/df). With s = s′ K would be c + t; that the estimate may be too small makes it larger. What
    is above .80 is for spreads that differ. With two seeds c has one degree of freedom, as in `judge`.
    """
    critical = critical_range(architectures, 1.0 if seeds == 2 else df, level) / math.sqrt(2)
    return _factor(critical, round(max(df, 1.0), 6)) * math.sqrt(2 * variance / seeds)


@lru_cache(maxsize=512)
def _log_critical(means: int, level: float) -> Callable[[Floats], Floats]:
    """Logarithm of the critical value as a function of 1/df."""
    tail = 1 - _range_cdf(means)
    scale, weight = zip(*(_scale(1 / x if x else _MANY) for x in _INVERSE_DF), strict=True)
    s, w = np.array(scale), np.array(weight)
    low, high = np.full(len(s), math.log(0.01)), np.full(len(s), math.log(1e6))
    for _ in range(44):
        middle = (low + high) / 2
        above = (w * np.interp(np.exp(middle)[:, None] * s, _SPAN, tail)).sum(1) > level
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    found: Callable[[Floats], Floats] = PchipInterpolator(_INVERSE_DF, (low + high) / 2)
    return found


@lru_cache(maxsize=128)
def _range_cdf(means: int) -> Floats:
    """P(range of `means` standard normals < w) for every w of `_SPAN`: m ∫ φ(z) (Φ(z + w) − Φ(z))^(m − 1) dz."""
    z = np.linspace(-8.0, 8.0, 321)
    inside = special.ndtr(z[:, None] + _SPAN) - special.ndtr(z)[:, None]
    density = stats.norm.pdf(z) * (z[1] - z[0])
    return np.clip(means * density @ inside ** (means - 1), 0.0, 1.0)


@lru_cache(maxsize=512)
def _scale(df: float) -> tuple[Floats, Floats]:
    """Values of √(χ²/df) and their weights, evenly spaced in the logarithm."""
    u = np.linspace(-14.0, 6.0, 161) / math.sqrt(df)
    log_density = df * u - df / 2 * np.exp(2 * u)
    weight = np.exp(log_density - log_density.max())
    return np.exp(u), weight / weight.sum()


@lru_cache(maxsize=256)
def _factor(critical: float, df: float) -> float:
    s, w = (values[::2] for values in _scale(df))
    w = w / w.sum()
    both = np.outer(w, w)
    low, high = 0.0, 50 * critical
    for _ in range(40):
        middle = (low + high) / 2
        power = float((both * special.ndtr(middle * s[:, None] - critical * s)).sum())
        low, high = (middle, high) if power < PLANNED else (low, middle)
    return (low + high) / 2
