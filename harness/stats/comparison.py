"""Compare the architectures of one task: pairs are paired by seed, and all pairs judged together.

`judge` holds the model and the test, `studentised` its critical values; here they become what a board shows: ranks,
group letters, intervals, the smallest difference it could have shown, and the notes beside them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.stats.judge import Verdict, design, judge
from harness.stats.studentised import LEVEL, Floats, smallest_difference

Scores = Mapping[str, Mapping[int, float]]
"""scores[architecture][seed], all in the metric's own unit."""
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean, interval and ranks of one architecture; scores are in the metric's unit."""

    mean: float
    low: float | None
    high: float | None
    """95% interval of the mean, from the noise that is left when the effect shared by all on one seed is taken out."""
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
    """Variance of the noise, squared units of the metric: pooled, and more where the spreads are uneven."""
    df: float
    """Effective degrees of freedom: (k − 1)(n − 1), and fewer where the spreads are uneven."""
    smallest_difference: float | None
    """What a pair must differ by to be separated in 80% of repetitions."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Influence:
    """Pairs that would be separated, or would not, if `architecture` were not on the board."""

    architecture: str
    separated_without: tuple[Pair, ...]
    """Tied on the board, separated without it; (better, worse)."""
    tied_without: tuple[Pair, ...]
    """Separated on the board, tied without it; (better, worse)."""


def compare(scores: Scores, *, higher_is_better: bool, level: float = LEVEL) -> Comparison:
    """Judge all pairs of architectures. Scores that are not finite count as missing."""
    clean, means, order = _ordered(scores, higher_is_better)
    names = [a for a, by in clean.items() if len(by) > 1]
    table = _table({a: clean[a] for a in names})
    verdict = judge(table, level)
    usable = bool(verdict.usable[0])
    separated = _separated(names, table, verdict, order)
    half = dict(zip(names, verdict.half[0].tolist(), strict=True)) if usable else {}
    shared, estimates = letters(order, separated), {}
    for a in order:
        low, high = (means[a] - half[a], means[a] + half[a]) if a in half else (None, None)
        first = 1 + sum(worse == a for _, worse in separated)
        last = len(order) - sum(better == a for better, _ in separated)
        estimates[a] = Estimate(means[a], low, high, first, last, shared[a])
    return Comparison(
        estimates=estimates,
        separated=separated,
        variance=float(verdict.spread.variance[0]) if usable else None,
        df=float(verdict.spread.df[0]) if names else 0.0,
        smallest_difference=_smallest(table, verdict) if usable else None,
        notes=_notes(clean, names, verdict),
    )


def leave_one_out(scores: Scores, *, higher_is_better: bool, level: float = LEVEL) -> tuple[Influence, ...]:
    """For every architecture the pairs of others whose relation would change if it were not on the board.

    The scatter of all and the number of architectures enter every comparison, so a tie may depend on a third.
    Architectures that change nothing are left out.
    """
    clean, _, order = _ordered(scores, higher_is_better)

    def separated(names: Sequence[str]) -> frozenset[Pair]:
        table = _table({a: clean[a] for a in names})
        return _separated(names, table, judge(table, level), order)

    names = [a for a, by in clean.items() if len(by) > 1]
    full, found = separated(names), []
    for name in names:
        without = separated([a for a in names if a != name])
        within = {pair for pair in full if name not in pair}
        if without != within:
            found.append(Influence(name, tuple(sorted(without - within)), tuple(sorted(within - without))))
    return tuple(found)


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


def _ordered(scores: Scores, higher_is_better: bool) -> tuple[dict[str, dict[int, float]], dict[str, float], list[str]]:
    """The finite scores, their means, and the architectures by their means, best first."""
    clean = {a: {s: float(v) for s, v in sorted(by.items()) if math.isfinite(v)} for a, by in sorted(scores.items())}
    clean = {a: by for a, by in clean.items() if by}
    means = {a: math.fsum(by.values()) / len(by) for a, by in clean.items()}
    return clean, means, sorted(means, key=lambda a: (-means[a] if higher_is_better else means[a], a))


def _table(scores: Scores) -> Floats:
    """(1, architectures, seeds), NaN where missing."""
    seeds = sorted({s for by in scores.values() for s in by})
    rows = [[by.get(s, math.nan) for s in seeds] for by in scores.values()]
    return np.array(rows, dtype=np.float64).reshape(1, len(scores), len(seeds))


def _separated(names: Sequence[str], table: Floats, verdict: Verdict, order: Sequence[str]) -> frozenset[Pair]:
    plan = design(~np.isnan(table[0]))
    place = {a: i for i, a in enumerate(order)}
    pairs = [(names[i], names[j]) for i, j in zip(plan.first, plan.second, strict=True)]
    apart = [pair for pair, differs in zip(pairs, verdict.apart[0], strict=True) if differs]
    return frozenset((a, b) if place[a] < place[b] else (b, a) for a, b in apart)


def _smallest(table: Floats, verdict: Verdict) -> float | None:
    """At the fewest seeds any architecture has, for two of those that are not left out."""
    kept = ~verdict.left_out[0]
    if kept.sum() < 2:
        return None
    seeds = int((~np.isnan(table[0]))[kept].sum(1).min())
    variance, df = float(verdict.spread.variance[0]), float(verdict.spread.df[0])
    return smallest_difference(variance, df, len(kept), seeds, float(verdict.level[0]))


def _notes(scores: Scores, names: Sequence[str], verdict: Verdict) -> tuple[str, ...]:
    notes, usable = [], bool(verdict.usable[0])
    single = [a for a, by in scores.items() if len(by) == 1]
    everyone = {s for by in scores.values() for s in by}
    fewer = [f"{a} ({len(by)} of {len(everyone)})" for a, by in scores.items() if 1 < len(by) < len(everyone)]
    if single and len(single) == len(scores):
        notes.append("one seed per architecture: no interval and no claim about ranks")
    elif single:
        notes.append(f"one seed only, so neither interval nor place in the comparison: {', '.join(single)}")
    if fewer:
        notes.append(f"seeds missing, compared through the seeds shared with others: {', '.join(fewer)}")
    if names and not usable:
        scattered = verdict.residual_df > 0
        cause = "the seeds show no scatter at all" if scattered else "too few scores to estimate the noise"
        notes.append(f"{cause}: no interval and no claim about ranks")
    two = [a for a in names if len(scores[a]) == 2]
    if usable and two:
        who = "two seeds per architecture" if len(two) == len(names) else f"two seeds only ({', '.join(two)})"
        notes.append(f"{who}: too few to show how widely it scatters, so only huge differences are separated")
    if usable and (wild := [a for a, out in zip(names, verdict.left_out[0], strict=True) if out]):
        notes.append(f"scattered far more widely than the rest, so judged apart from it: {', '.join(wild)}")
    return tuple(notes)
