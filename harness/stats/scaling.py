"""How a loss falls with training compute, and what of that one architecture saves beside another.

    L(C) = E + A C^{−a}

is fitted to the losses of a ladder, whose rungs are models of growing size trained on tokens in proportion: Huber's
loss on log L (Hoffmann et al. 2022, arXiv:2203.15556, section 3.3). On such a ladder parameters N and tokens D grow
together, so their terms A/N^α and B/D^β cannot be told apart; C, the training FLOPs, stands for both.

Intervals are of a parametric bootstrap: the losses of every rung are drawn anew about what was fitted, with the scatter
that all rungs have about it, and fitted again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from harness.stats.judge import SEED, Floats

DELTA = 1e-3
"""Where Huber's loss on log L becomes linear (Hoffmann et al. 2022)."""
DRAWS = 200
LEVEL = 0.90
FEWEST = 3
"""Rungs that a fit needs: it has as many parameters."""


@dataclass(frozen=True, slots=True)
class Law:
    """L(C) = E + A (C / C₀)^{−a}."""

    E: float
    A: float
    a: float
    C0: float
    """The geometric mean of the compute that it was fitted to."""

    def loss(self, compute: float) -> float:
        """L(C)."""
        return float(self.E + self.A * (compute / self.C0) ** -self.a)

    def compute(self, loss: float) -> float:
        """The C at which L(C) is `loss`; infinite where none is enough."""
        if loss <= self.E:
            return math.inf
        with np.errstate(over="ignore"):
            return float(self.C0 * np.power((loss - self.E) / self.A, -1 / self.a))


@dataclass(frozen=True, slots=True)
class Fit:
    """A law, and the laws of resampled losses."""

    law: Law
    resampled: list[Law]
    scatter: float
    """Of log losses about the law, from run to run."""

    def interval(self, values: Sequence[float]) -> tuple[float, float]:
        """The middle `LEVEL` of what was computed for each resampled law; infinite ends stay so."""
        ordered = np.sort(np.asarray(values, dtype=float))
        cut = (1 - LEVEL) / 2 * (len(ordered) - 1)
        return float(ordered[math.floor(cut)]), float(ordered[math.ceil(len(ordered) - 1 - cut)])

    def predicted(self, compute: float, seeds: int, seed: int = SEED) -> tuple[float, float, float]:
        """The mean loss that this many seeds will have at a compute, and its interval."""
        noise = np.random.default_rng(seed).normal(size=len(self.resampled)) * self.scatter / math.sqrt(seeds)
        means = [law.loss(compute) * math.exp(e) for law, e in zip(self.resampled, noise, strict=True)]
        return self.law.loss(compute), *self.interval(means)


def fit(compute: Sequence[float], losses: Sequence[Sequence[float]], seed: int = SEED) -> Fit:
    """Fit a ladder: the training FLOPs of each rung, and the losses of its seeds.

    Raises:
        ValueError: there are fewer than `FEWEST` rungs, or a loss or a compute is not positive.
    """
    if len(compute) < FEWEST:
        raise ValueError(f"a fit needs {FEWEST} rungs, there are {len(compute)}")
    log_C = np.log(np.repeat(np.asarray(compute, dtype=float), [len(own) for own in losses]))
    log_L = np.log(np.concatenate([np.asarray(own, dtype=float) for own in losses]))
    if not np.isfinite(log_C).all() or not np.isfinite(log_L).all():
        raise ValueError("losses and compute must be positive")
    center = float(np.log(np.asarray(compute, dtype=float)).mean())
    x = log_C - center
    starts = [(math.log(f * np.exp(log_L.min())), math.log(g)) for f in (0.3, 0.6, 0.9) for g in (0.1, 0.3)]
    best = min((_minimum(x, log_L, start) for start in starts), key=lambda found: found.cost)
    fitted, rng = _log_loss(best.x, x), np.random.default_rng(seed)
    scatter = math.sqrt(np.square(log_L - fitted).sum() / max(1, len(x) - 3))
    draws = [fitted + scatter * rng.normal(size=len(x)) for _ in range(DRAWS)]
    again = [_minimum(x, draw, (best.x[0], best.x[2])) for draw in draws]
    C0 = math.exp(center)
    return Fit(_law(best.x, C0), [_law(found.x, C0) for found in again], scatter)


def _law(found: Floats, C0: float) -> Law:
    log_E, log_A, log_a = map(float, found)
    return Law(math.exp(log_E), math.exp(log_A), math.exp(log_a), C0)


def _log_loss(parameters: Floats, x: Floats) -> Floats:
    log_E, log_A, log_a = parameters
    return np.logaddexp(log_E, log_A - math.exp(log_a) * x)


def _minimum(x: Floats, log_L: Floats, start: tuple[float, float]) -> optimize.OptimizeResult:
    """From log E and log a; A is what the mean loss leaves."""
    log_E = min(start[0], float(log_L.mean()) - 0.05)
    log_A = math.log(math.exp(float(log_L.mean())) - math.exp(log_E))
    first = np.array([log_E, log_A, start[1]])
    bounds = [-20.0, -20.0, math.log(1e-3)], [float(log_L.min()), 20.0, math.log(3.0)]
    first = np.clip(first, np.array(bounds[0]) + 1e-6, np.array(bounds[1]) - 1e-6)

    def slopes(parameters: Floats) -> Floats:
        log_E, log_A, log_a = parameters
        share = special.expit(log_A - math.exp(log_a) * x - log_E)  # of A C^{−a} in L
        return np.stack([1 - share, share, -share * math.exp(log_a) * x], axis=1)

    def errors(parameters: Floats) -> Floats:
        return _log_loss(parameters, x) - log_L

    return optimize.least_squares(errors, first, slopes, bounds=bounds, loss="huber", f_scale=DELTA, max_nfev=100)


def multiplier(row: Fit, reference: Fit, compute: float) -> tuple[float, float, float]:
    """How much compute the reference needs for the loss that the row has at `compute`, over that; and its interval.

    Above 1 the row saves compute; infinite where the reference never gets there.
    """

    def of(one: Law, other: Law) -> float:
        return other.compute(one.loss(compute)) / compute

    pairs = zip(row.resampled, reference.resampled, strict=True)
    return of(row.law, reference.law), *row.interval([of(one, other) for one, other in pairs])


def crossing(one: Law, other: Law, low: float, high: float) -> float | None:
    """The first compute between two bounds at which two curves cross; None where they do not."""
    grid = np.geomspace(low, high, 400)
    gaps = np.array([one.loss(C) - other.loss(C) for C in grid])
    changes = np.flatnonzero(np.sign(gaps[:-1]) * np.sign(gaps[1:]) < 0)
    if not len(changes):
        return None
    i = changes[0]
    return float(optimize.brentq(lambda C: one.loss(C) - other.loss(C), grid[i], grid[i + 1]))
