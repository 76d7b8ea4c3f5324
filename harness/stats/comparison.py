"""Compare the architectures of one task, all pairs judged together.

`judge` holds the model and the test; here they become what a board shows: ranks, group letters, intervals, the smallest
difference it could have shown, and the notes beside them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, compress

import numpy as np

from harness.stats.judge import DRAWS, LEVEL, Floats, Mask, Verdict, judge

Scores = Mapping[str, Mapping[int, float]]
"""scores[architecture][seed], all in the metric's own unit."""
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean, interval and ranks of one architecture; scores are in the metric's unit."""

    mean: float
    low: float | None
    high: float | None
    """95% interval of the mean by the architecture's moderated variance; None where nothing tells its scatter."""
    rank_low: int
    rank_high: int
    letters: str
    """Compact letter display: two architectures are separated exactly when they share no letter."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All architectures of one task against each other."""

    estimates: dict[str, Estimate]
    """Best first."""
    tied: tuple[int, ...]
    """For each of them, which it is not separated from, itself included: sets as bits, the best is bit 0."""
    variance: float | None
    """Variance of an ordinary architecture's score from seed to seed, squared units of the metric."""
    smallest_difference: float | None
    """What an ordinary pair must differ by to be separated in 80% of repetitions."""
    notes: tuple[str, ...]

    @property
    def separated(self) -> frozenset[Pair]:
        """Pairs (better, worse)."""
        pairs = combinations(enumerate(self.estimates), 2)
        return frozenset((a, b) for (i, a), (j, b) in pairs if not self.tied[i] >> j & 1)


@dataclass(frozen=True, slots=True)
class Influence:
    """Pairs that would be separated, or would not, if `architecture` were not on the board."""

    architecture: str
    separated_without: tuple[Pair, ...]
    """Tied on the board, separated without it; (better, worse)."""
    tied_without: tuple[Pair, ...]
    """Separated on the board, tied without it; (better, worse)."""


def compare(
    scores: Scores, *, higher_is_better: bool, level: float = LEVEL, draws: int = DRAWS, uneven: bool = False
) -> Comparison:
    """Judge all pairs of architectures at a level. Scores that are not finite count as missing.

    `uneven` says that rows were given different numbers of seeds: fewer than others have are then no seeds missing.
    """
    clean, means, order = _ordered(scores, higher_is_better)
    names = _judged(clean)
    verdict = judge(_table(clean, names), level, draws)
    half = dict(zip(names, verdict.half.tolist(), strict=True))
    tied = _tied(names, verdict.apart, order)
    estimates = {}
    for i, (a, shared) in enumerate(zip(order, letters(tied), strict=True)):
        low, high = (means[a] - half[a], means[a] + half[a]) if half.get(a) else (None, None)
        level_above = (tied[i] & (1 << i) - 1).bit_count()
        level_below = tied[i].bit_count() - 1 - level_above
        estimates[a] = Estimate(means[a], low, high, 1 + i - level_above, i + 1 + level_below, shared)
    return Comparison(
        estimates=estimates,
        tied=tied,
        variance=verdict.variance or None,
        smallest_difference=verdict.smallest or None,
        notes=_notes(clean, names, verdict, order, uneven=uneven),
    )


def leave_one_out(scores: Scores, *, higher_is_better: bool, level: float = LEVEL) -> tuple[Influence, ...]:
    """For every architecture the pairs of others whose relation would change if it were not on the board.

    The scatter of all and the number of architectures enter every comparison, so a tie may depend on a third.
    Architectures that change nothing are left out.
    """
    clean, _, order = _ordered(scores, higher_is_better)

    def separated(names: Sequence[str]) -> frozenset[Pair]:
        return _pairs(names, judge(_table(clean, names), level).apart, order)

    names = _judged(clean)
    full, found = separated(names), []
    for name in names:
        without = separated([a for a in names if a != name])
        within = {pair for pair in full if name not in pair}
        if without != within:
            found.append(Influence(name, tuple(sorted(without - within)), tuple(sorted(within - without))))
    return tuple(found)


def letters(tied: Sequence[int]) -> list[str]:
    """Compact letter display (Piepho 2004, doi:10.1198/1061860043515) of rows, best first; `a` goes to the best.

    From the best row on, whatever it is tied with and has no letter in common with yet is joined to a group, the
    furthest first, and then whatever else is tied with all of the group. `tied` is as in a `Comparison`.
    """
    joined, groups = [0] * len(tied), []
    for i in range(len(tied)):
        while missing := tied[i] & ~joined[i]:
            group, common = 1 << i, tied[i] & ~(1 << i)
            while common:
                new = (common & missing or common).bit_length() - 1
                group |= 1 << new
                common &= tied[new] & ~(1 << new)
            groups.append(group)
            for member in _bits(group):
                joined[member] |= group
    groups.sort(key=_bits)
    found = [""] * len(tied)
    for k, group in enumerate(groups):
        for i in _bits(group):
            found[i] += _letter(k)
    return found


def _tied(names: Sequence[str], apart: Mask, order: Sequence[str]) -> tuple[int, ...]:
    """Which rows of `order` each is not separated from; pairs of `names` are judged, others are tied with all."""
    place = {a: i for i, a in enumerate(order)}
    at = np.array([place[a] for a in names], dtype=np.int64)
    first, second = np.triu_indices(len(names), 1)
    table = np.ones((len(order), len(order)), dtype=bool)
    table[at[first[apart]], at[second[apart]]] = table[at[second[apart]], at[first[apart]]] = False
    return tuple(int.from_bytes(row.tobytes(), "little") for row in np.packbits(table, axis=1, bitorder="little"))


def _bits(group: int) -> list[int]:
    return [i for i in range(group.bit_length()) if group >> i & 1]


def _letter(i: int) -> str:
    letter = "abcdefghijklmnopqrstuvwxyz"[i % 26]
    return letter if i < 26 else f"{letter}{i // 26}"


def _ordered(scores: Scores, higher_is_better: bool) -> tuple[dict[str, dict[int, float]], dict[str, float], list[str]]:
    """The finite scores, their means, and the architectures by their means, best first."""
    clean = {a: {s: float(v) for s, v in sorted(by.items()) if math.isfinite(v)} for a, by in sorted(scores.items())}
    clean = {a: by for a, by in clean.items() if by}
    means = {a: math.fsum(by.values()) / len(by) for a, by in clean.items()}
    return clean, means, sorted(means, key=lambda a: (-means[a] if higher_is_better else means[a], a))


def _judged(scores: Scores) -> list[str]:
    """Those with two seeds or more, by their scatter: a number of the same draws for each, whatever its name."""
    several = [a for a, by in scores.items() if len(by) > 1]
    return sorted(several, key=lambda a: _variance([*scores[a].values()]))


def _variance(values: Sequence[float]) -> float:
    middle = math.fsum(values) / len(values)
    return math.fsum((value - middle) ** 2 for value in values) / len(values)


def _table(scores: Scores, names: Sequence[str]) -> Floats:
    """(architectures, seeds), NaN where missing."""
    seeds = sorted({s for a in names for s in scores[a]})
    rows = [[scores[a].get(s, math.nan) for s in seeds] for a in names]
    return np.array(rows, dtype=np.float64).reshape(len(names), len(seeds))


def _pairs(names: Sequence[str], chosen: Mask, order: Sequence[str]) -> frozenset[Pair]:
    """The chosen pairs of the one board, (better, worse)."""
    place = {a: i for i, a in enumerate(order)}
    pairs = compress(combinations(names, 2), chosen)
    return frozenset((a, b) if place[a] < place[b] else (b, a) for a, b in pairs)


def _notes(
    scores: Scores, names: Sequence[str], verdict: Verdict, order: Sequence[str], *, uneven: bool
) -> tuple[str, ...]:
    notes = []
    single = [a for a in scores if a not in names]
    most = max((len(by) for by in scores.values()), default=0)
    fewer = [f"{a} ({len(scores[a])} of {most})" for a in names if len(scores[a]) < most]
    if single and not names:
        notes.append("one seed per architecture: no interval and no claim about ranks")
    elif single:
        notes.append(f"one seed only, so neither interval nor place in the comparison: {', '.join(single)}")
    if fewer and not uneven:
        notes.append(f"seeds missing: {', '.join(fewer)}")
    if names and not verdict.half.any():
        notes.append("the seeds show no scatter at all: no interval and no claim about ranks")
    if two := [a for a in names if len(scores[a]) == 2]:
        who = "two seeds per architecture" if len(two) == len(names) else f"two seeds only ({', '.join(two)})"
        notes.append(f"{who}: how widely one scatters is known mostly from how widely all do")
    if jumped := [f"{a}–{b}" for a, b in sorted(_pairs(names, verdict.jumped, order))]:
        why = "seeds of one architecture fall on both levels, so chance may too"
        notes.append(f"not separated, since {why}: {_few(jumped)}")
    return tuple(notes)


def _few(items: Sequence[str]) -> str:
    return ", ".join(items) if len(items) < 5 else f"{', '.join(items[:3])} and {len(items) - 3} more pairs"
