"""One order over many boards that few architectures are all on: Bradley and Terry's model of who beats whom.

The chance that architecture i beats j on a task is π_i / (π_i + π_j) (Bradley and Terry 1952, Biometrika 39). Every
board is a tournament: a pair of its ranked rows has met once, and the row has won the share of pairs of runs in which
its run is better. What an architecture has not been tried on costs it nothing and gains it nothing. The strengths π
are found by Hunter's iteration (2004, Annals of Statistics 32, equation 3), and intervals by a bootstrap over tasks, as
Chatbot Arena does over votes (Chiang et al. 2024, arXiv:2403.04132): boards of one task are drawn together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.special import expit
from scipy.stats import rankdata

from harness.stats.judge import LEVEL

Floats = NDArray[np.float64]
Tournament = tuple[str, Mapping[str, Sequence[float]]]
"""A task, and the scores of each architecture's runs on one board of it, larger where better."""

DRAWS = 1000
"""Fewer where there are more than 60 architectures: see `overall`."""
SEED = 19520101
TIES = 0.5
"""Everybody also meets an opponent of strength 1, half won and half lost, so that one who never lost stays finite."""
STEPS = 50
FEWEST = 5
"""Tasks an architecture must be ranked on to have a place among the others."""


@dataclass(frozen=True, slots=True)
class Overall:
    """Where one architecture stands over all boards."""

    wins: float
    """The chance to beat another architecture, averaged over the others."""
    low: float
    high: float
    """The 95% interval of `wins`."""
    rank: int
    rank_low: int
    rank_high: int
    """The ranks it may hold, 95% of the draws."""
    tasks: int
    """On which it is ranked."""


def overall(tournaments: Sequence[Tournament], fewest: int = FEWEST, level: float = LEVEL) -> dict[str, Overall]:
    """Where each architecture that is ranked on `fewest` tasks (or on all, if there are fewer) stands, best first.

    All boards count, also those where they meet others. Empty without two such architectures.
    """
    names = sorted({name for _, scores in tournaments for name in scores})
    tasks = sorted({task for task, _ in tournaments})
    on = {name: len({task for task, scores in tournaments if name in scores}) for name in names}
    placed = [i for i, name in enumerate(names) if on[name] >= min(fewest, len(tasks))]
    if len(placed) < 2:
        return {}
    won = np.zeros((len(tasks), len(names), len(names)))
    for task, scores in tournaments:
        at = [names.index(name) for name in scores]
        won[tasks.index(task)][np.ix_(at, at)] += _won(list(scores.values()))
    draws = max(100, min(DRAWS, 4_000_000 // len(names) ** 2))
    drawn = np.random.default_rng(SEED).multinomial(len(tasks), np.full(len(tasks), 1 / len(tasks)), size=draws)
    whole = _strengths(won.sum(0), np.zeros(len(names)))
    every = [whole, *(_strengths(np.tensordot(count, won, 1), whole) for count in drawn)]
    wins = np.stack([_chances(strength[placed]) for strength in every])
    first, last = (rankdata(-wins, axis=1, method=ties) for ties in ("min", "max"))
    ends, half = np.quantile(wins[1:], [level / 2, 1 - level / 2], axis=0), level / 2
    lowest, highest = np.quantile(first[1:], half, axis=0), np.quantile(last[1:], 1 - half, axis=0)
    rank_low, rank_high = np.minimum(np.floor(lowest), first[0]), np.maximum(np.ceil(highest), last[0])
    found = {}
    for column, i in enumerate(placed):
        chances, places = (wins[0, column], *ends[:, column]), (first[0, column], rank_low[column], rank_high[column])
        found[names[i]] = Overall(*map(float, chances), *map(int, places), on[names[i]])  # type: ignore[call-arg, arg-type]
    return dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))


def _won(scores: Sequence[Sequence[float]]) -> Floats:
    """(rows, rows): the share of pairs of runs that each row wins against each other one; a tie is half."""
    counts = np.array([len(own) for own in scores])
    table = np.full((len(scores), counts.max(initial=0)), np.nan)
    for i, own in enumerate(scores):
        table[i, : len(own)] = own
    won = np.zeros((len(scores), len(scores)))
    for i, own in enumerate(scores):
        mine = np.asarray(own)[:, None, None]
        won[i] = ((mine > table) + 0.5 * (mine == table)).sum((0, 2)) / (len(own) * counts)
    np.fill_diagonal(won, 0.0)
    return won


def _strengths(won: Floats, strength: Floats) -> Floats:
    """(rows,): log π from (rows, rows) wins, by Newton's method from any start: the likelihood has one maximum."""
    met, total = won + won.T, won.sum(1) + TIES
    for _ in range(STEPS):
        chance, even = expit(strength[:, None] - strength), expit(strength)
        slope = total - (met * chance).sum(1) - 2 * TIES * even
        flow = met * chance * (1 - chance)
        curvature = np.diag(flow.sum(1) + 2 * TIES * even * (1 - even)) - flow
        step = solve(curvature, slope, assume_a="pos", check_finite=False)
        strength = strength + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-6:
            break
    return strength


def _chances(strength: Floats) -> Floats:
    """(rows,): the mean chance to beat another row."""
    against = expit(strength[:, None] - strength)
    return (against.sum(1) - 0.5) / (len(strength) - 1)
