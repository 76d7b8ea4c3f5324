"""How sure a ranking is: seeds are the unit, every comparison is paired by seed, and all pairs are judged together.

The model of one task is y[a, s] = mean[a] + effect[s] + noise: a seed (data order, initialisation) is a block that all
architectures share. Pairs are compared by Tukey's studentised range (Tukey-Kramer where seeds are missing), so that the
chance of even one false separation on a board is `level`.

The plain test assumes that all architectures scatter alike. It is guarded twice. An architecture whose scatter drowns
the others' (it learned a task on one seed and not on another, say) is left out of the pooled estimate and compared by
its own scatter with its own few degrees of freedom. Of the rest, one that scatters more than the pooled estimate is
judged by its own scatter, one that scatters less by the pooled one.

In simulation (500 boards a case, 6 to 14 equal architectures, 3 or 5 seeds) the family-wise error is .02 to .03 with
equal spreads, .05 to .09 with spreads that differ e-fold, .03 to .09 with one that scatters 20 times as widely, and up
to .15 when spreads are strung out from 1 to 20, which is too much and not yet mended. A difference of 4 standard
deviations is seen in .72 to .80 of boards, and in .55 to .62 beside one that scatters 20 times as widely, where pooling
everything sees it in .03. Games-Howell for every pair is no alternative: at 3 seeds its error passes .10.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = Mapping[str, Mapping[int, float]]
"""scores[architecture][seed], all in the metric's own unit."""
Pair = tuple[str, str]

LEVEL = 0.05
POWER = 0.80


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the seeds say about one architecture; scores are in the metric's unit."""

    mean: float
    sd: float | None
    """Plain standard deviation over the seeds (n - 1), seed effects included."""
    low: float | None
    high: float | None
    """95% interval of the mean, from the noise that is left when the effect shared by all on one seed is taken out."""
    seeds: tuple[int, ...]
    rank_low: int
    rank_high: int
    letters: str
    """Compact letter display: two architectures are separated exactly when they share no letter."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All architectures of one task against each other."""

    estimates: dict[str, Estimate]
    """Best first."""
    separated: frozenset[Pair]
    """Pairs (better, worse)."""
    variance: float | None
    """Pooled variance of the noise, squared units of the metric."""
    df: int
    smallest_difference: float | None
    """What a pair must differ by to be separated in 80% of repetitions."""
    notes: tuple[str, ...]


def compare(scores: Scores, *, higher_is_better: bool, level: float = LEVEL) -> Comparison:
    """Judge all pairs of architectures. Scores that are not finite count as missing."""
    clean = {a: {s: float(v) for s, v in sorted(by.items()) if math.isfinite(v)} for a, by in sorted(scores.items())}
    clean = {a: by for a, by in clean.items() if by}
    means = {a: math.fsum(by.values()) / len(by) for a, by in clean.items()}
    order = sorted(means, key=lambda a: (-means[a] if higher_is_better else means[a], a))
    fit = _calm_fit({a: by for a, by in clean.items() if len(by) > 1}, level)
    separated = frozenset(
        (better, worse)
        for i, better in enumerate(order)
        for worse in order[i + 1 :]
        if means[better] != means[worse] and fit.separates(better, worse, higher_is_better, level)
    )
    shared = letters(order, separated)
    estimates = {}
    for a in order:
        half = fit.half_width(a, level)
        estimates[a] = Estimate(
            mean=means[a],
            sd=float(np.std(list(clean[a].values()), ddof=1)) if len(clean[a]) > 1 else None,
            low=None if half is None else means[a] - half,
            high=None if half is None else means[a] + half,
            seeds=tuple(clean[a]),
            rank_low=1 + sum(worse == a for _, worse in separated),
            rank_high=len(order) - sum(better == a for better, _ in separated),
            letters=shared[a],
        )
    variance = fit.variance if fit.usable else None
    return Comparison(estimates, separated, variance, fit.df, fit.smallest_difference(level), _notes(clean, fit))


def smallest_difference(variance: float, df: int, architectures: int, seeds: int, level: float = LEVEL) -> float:
    """The difference of two means that is separated with 80% power: (q/√2 + t_.8) · √(2 variance / seeds).

    q is the critical value of the studentised range for that many architectures, t_.8 the 80% point of Student's t,
    both with `df` degrees of freedom.
    """
    scale = critical_range(architectures, df, level) / math.sqrt(2) + float(stats.t.ppf(POWER, df))
    return scale * math.sqrt(2 * variance / seeds)


@lru_cache(maxsize=256)
def critical_range(architectures: int, df: int, level: float = LEVEL) -> float:
    """Upper `level` point of the studentised range."""
    return float(stats.studentized_range.ppf(1 - level, architectures, df))


def letters(order: Sequence[str], separated: Collection[Pair]) -> dict[str, str]:
    """Compact letter display by insert and absorb (Piepho 2004, doi:10.1198/1061860043515); `a` goes to the best."""
    groups = [frozenset(order)]
    for pair in sorted(separated):
        split = [g - {name} for g in groups if g.issuperset(pair) for name in pair]
        groups = [g for g in groups if not g.issuperset(pair)]
        for group in split:
            if not any(group <= other for other in groups):
                groups = [g for g in groups if not g < group] + [group]
    place = {a: i for i, a in enumerate(order)}
    groups.sort(key=lambda g: sorted(place[a] for a in g))
    return {a: "".join(_letter(i) for i, g in enumerate(groups) if a in g) for a in order}


def _letter(i: int) -> str:
    letter = "abcdefghijklmnopqrstuvwxyz"[i % 26]
    return letter if i < 26 else f"{letter}{i // 26}"


@dataclass(frozen=True, slots=True)
class _Fit:
    """Least squares of the block design over the architectures with two seeds or more."""

    architectures: tuple[str, ...]
    counts: dict[str, int]
    means: dict[str, float]
    effects: NDArray[np.float64]
    """Architecture terms of the minimum-norm solution; only estimable differences of them mean anything."""
    inverse: NDArray[np.float64]
    """Pseudo-inverse of XᵀX, architectures first."""
    estimable: NDArray[np.float64]
    """Projection onto the row space of X."""
    variance: float
    own: dict[str, float]
    """Guarded variance per architecture: the larger of the pooled one and its own."""
    df: int
    usable: bool
    wild: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Scores of the architectures that scatter so much more than the rest that they are left out of the fit."""

    @property
    def compared(self) -> int:
        return len(self.architectures) + len(self.wild)

    def separates(self, better: str, worse: str, higher_is_better: bool, level: float) -> bool:
        if better in self.wild or worse in self.wild:
            return self._separates_wild(better, worse, higher_is_better, level)
        if not self.usable or better not in self.own or worse not in self.own:
            return False
        i, j = self.architectures.index(better), self.architectures.index(worse)
        contrast = np.zeros(len(self.inverse))
        contrast[i], contrast[j] = 1.0, -1.0
        if not np.allclose(self.estimable @ contrast, contrast, atol=1e-8):
            return False  # no chain of shared seeds connects the two
        difference = float(self.effects[i] - self.effects[j]) * (1 if higher_is_better else -1)
        spread = float(contrast @ self.inverse @ contrast) * (self.own[better] + self.own[worse]) / 2
        return difference > critical_range(self.compared, self.df, level) * math.sqrt(spread / 2)

    def _separates_wild(self, better: str, worse: str, higher_is_better: bool, level: float) -> bool:
        """Games-Howell: each side by its own scatter, with the few degrees of freedom that leaves."""
        sides = [self._alone(name) for name in (better, worse)]
        if None in sides:
            return False
        (m1, v1, df1), (m2, v2, df2) = [side for side in sides if side is not None]
        difference = (m1 - m2) * (1 if higher_is_better else -1)
        df = math.floor((v1 + v2) ** 2 / (v1**2 / df1 + v2**2 / df2))  # Welch and Satterthwaite, rounded down
        return difference > critical_range(self.compared, df, level) * math.sqrt((v1 + v2) / 2)

    def _alone(self, name: str) -> tuple[float, float, float] | None:
        """Mean, its variance, and degrees of freedom of one architecture judged by itself."""
        if name in self.wild:
            scores = list(self.wild[name].values())
            return math.fsum(scores) / len(scores), float(np.var(scores, ddof=1)) / len(scores), len(scores) - 1
        if not self.usable or name not in self.own:
            return None
        return self.means[name], self.own[name] / self.counts[name], self.df

    def half_width(self, architecture: str, level: float) -> float | None:
        if architecture in self.wild:
            _, variance, df = self._alone(architecture) or (0.0, 0.0, 1.0)
            return float(stats.t.ppf(1 - level / 2, df)) * math.sqrt(variance)
        if not self.usable or architecture not in self.own:
            return None
        scale = float(stats.t.ppf(1 - level / 2, self.df))
        return scale * math.sqrt(self.own[architecture] / self.counts[architecture])

    def smallest_difference(self, level: float) -> float | None:
        """At the fewest seeds any architecture has, with the guarded variance averaged over architectures."""
        if not self.usable or len(self.architectures) < 2:
            return None
        variance = math.fsum(self.own.values()) / len(self.own)
        return smallest_difference(variance, self.df, self.compared, min(self.counts.values()), level)


def _calm_fit(scores: Scores, level: float) -> _Fit:
    """The fit without the architectures that would drown the others in their own scatter, found by Cochran's C.

    One at a time the architecture with the largest variance is left out while its share of all is larger than chance
    gives in 1% of boards of equal spreads (Cochran 1941; ISO 5725-2, section 7.3.3). Three always stay.
    """
    wild: dict[str, Mapping[int, float]] = {}
    while True:
        fit = _fit(scores)
        worst = max(fit.own, key=lambda a: fit.own[a], default=None)
        if worst is None or len(scores) <= 3 or not fit.usable or fit.own[worst] <= _cochran_limit(fit) * fit.variance:
            return dataclasses.replace(fit, wild=wild)
        wild = {**wild, worst: scores[worst]}
        scores = {a: by for a, by in scores.items() if a != worst}


def _cochran_limit(fit: _Fit, chance: float = 0.01) -> float:
    """How many times the mean variance the largest of k may be: k·C, C = 1 / (1 + (k − 1)/F)."""
    k = len(fit.architectures)
    each = fit.df / k
    ratio = float(stats.f.ppf(1 - chance / k, each, (k - 1) * each))
    return k / (1 + (k - 1) / ratio)


def _fit(scores: Scores) -> _Fit:
    names = tuple(sorted(scores))
    seeds = sorted({s for by in scores.values() for s in by}) if len(names) > 1 else []
    cells = [(a, s, v) for a in names for s, v in scores[a].items()]
    X = np.zeros((len(cells), len(names) + len(seeds)))
    for row, (a, s, _) in enumerate(cells):
        X[row, names.index(a)] = 1
        if seeds:
            X[row, len(names) + seeds.index(s)] = 1
    y = np.array([v for *_, v in cells], dtype=np.float64)
    inverse = np.linalg.pinv(X.T @ X, hermitian=True)
    shift = float(y.mean()) if cells else 0.0
    solution = inverse @ X.T @ (y - shift)
    squares = (y - shift - X @ solution) ** 2
    freedom = 1 - np.einsum("ij,jk,ik->i", X, inverse, X)
    df = round(float(freedom.sum()))
    variance = float(squares.sum()) / df if df > 0 else 0.0
    own = {}
    for a in names:
        mine = X[:, names.index(a)] == 1
        free = float(freedom[mine].sum())
        own[a] = max(variance, float(squares[mine].sum()) / free if free > 1e-8 else 0.0)
    return _Fit(
        architectures=names,
        counts={a: len(scores[a]) for a in names},
        means={a: math.fsum(scores[a].values()) / len(scores[a]) for a in names},
        effects=solution[: len(names)],
        inverse=inverse,
        estimable=inverse @ (X.T @ X),
        variance=variance,
        own=own,
        df=df,
        usable=df > 0 and variance > (1e-9 * float(np.abs(y).max())) ** 2,
    )


def _notes(scores: Scores, fit: _Fit) -> tuple[str, ...]:
    notes = []
    single = [a for a, by in scores.items() if len(by) == 1]
    everyone = {s for by in scores.values() for s in by}
    fewer = [f"{a} ({len(by)} of {len(everyone)})" for a, by in scores.items() if 1 < len(by) < len(everyone)]
    if single and len(single) == len(scores):
        notes.append("one seed per architecture: no interval and no claim about ranks")
    elif single:
        notes.append(f"one seed only, so neither interval nor place in the comparison: {', '.join(single)}")
    if fewer:
        notes.append(f"seeds missing, compared through the seeds shared with others: {', '.join(fewer)}")
    if fit.architectures and not fit.usable:
        cause = "the seeds show no scatter at all" if fit.df > 0 else "too few scores to estimate the noise"
        notes.append(f"{cause}: no interval and no claim about ranks")
    if fit.wild:
        notes.append(f"scattered far more widely than the rest, so judged by its own scatter: {', '.join(fit.wild)}")
    return tuple(notes)
