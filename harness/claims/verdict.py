"""What measurements say about a claim.

A contrast has an interval: of the mean of what was measured over seeds, or of the difference of two such means, by the
model that boards compare rows by (`harness.stats.judge`). It holds where all of the interval lies within its bounds and
fails where all of it lies outside. A claim is supported where all contrasts hold, which needs no correction (Berger
1982, doi:10.1080/00401706.1982.10487790); over the claims the level is divided evenly (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from zlib import crc32

import numpy as np
from jaxtyping import Float
from scipy import special

from harness.claims.plan import FACTORS, Claim, Contrast, Factor, Margin, Score, Share, claims
from harness.claims.quantities import Measured
from harness.stats.judge import LEVEL, Floats, errors_of_means

Finding: TypeAlias = Literal["holds", "fails", "undecided", "not measured"]
Verdict: TypeAlias = Literal["supported", "refuted", "depends", "undecided", "not measured"]
Known: TypeAlias = tuple[float, int, Floats]
"""The mean of a quantity, over how many seeds, and draws of the error of that mean."""
DRAWS = 200_000
"""Of errors of means: an end of the interval is the one that some 500 of them are beyond."""
CLAIMS = 12
"""Over which the level is divided, fixed before the first was measured."""
MOST_SEEDS = 1000
"""More than these nobody makes."""


@dataclass(frozen=True)
class Effect:
    """A contrast with what was measured of it."""

    contrast: Contrast
    finding: Finding
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    """Of the quantity that has fewer."""
    needs: int | None = None
    """The seeds that would decide an undecided one if its mean stayed; None where so many are not made."""


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict."""

    name: str
    claim: Claim
    verdict: Verdict
    effects: list[Effect]
    measured: Measured


def level() -> float:
    """The level of each claim, so that all together err with at most `LEVEL`."""
    return LEVEL / CLAIMS


def judge_claim(name: str, measured: Measured) -> Judged:
    """The verdict on a claim."""
    claim = claims()[name]
    known = _known(claim, measured)
    effects = [_effect(contrast, known) for contrast in claim.contrasts]
    return Judged(name, claim, _verdict([effect.finding for effect in effects]), effects, measured)


def _verdict(findings: Sequence[Finding]) -> Verdict:
    found = {*findings}
    if found == {"holds"}:
        return "supported"
    if found == {"fails"}:
        return "refuted"
    if found >= {"holds", "fails"}:
        return "depends"
    return "not measured" if "not measured" in found else "undecided"


def _effect(contrast: Contrast, quantities: Mapping[str, Known]) -> Effect:
    known = [quantities[str(quantity)] for quantity in contrast.quantities]
    if not all(seeds for _, seeds, _ in known):
        return Effect(contrast, "not measured")
    mean, n = known[0][0] - sum(mean for mean, *_ in known[1:]), min(seeds for _, seeds, _ in known)
    if n == 1:
        return Effect(contrast, "undecided", mean, seeds=n)
    draws = known[0][2] - sum(draws for *_, draws in known[1:])
    low, high = (float(mean + end) for end in np.quantile(draws, [level() / 2, 1 - level() / 2]))
    finding = _finding(low, high, contrast.bounds)
    error = float(np.subtract(*np.quantile(draws, [0.84, 0.16]))) / 2
    needs = _needs(mean, error, n, contrast.bounds) if finding == "undecided" else None
    return Effect(contrast, finding, mean, low, high, n, needs)


def _known(claim: Claim, measured: Measured) -> dict[str, Known]:
    """Every quantity of a claim by its name, each drawn once; the shares from the same draws, on which all depend."""
    wanted = {str(quantity): quantity for contrast in claim.contrasts for quantity in contrast.quantities}
    known = {}
    for name, one in wanted.items():
        if isinstance(one, Margin):
            known[name] = _margin(one, measured)
        elif not isinstance(one, Share):
            known[name] = _score(one, measured)
    return known if len(known) == len(wanted) else known | _shares(measured.cells())


def _score(quantity: str | Score, measured: Measured) -> Known:
    values, others = measured.rows(quantity)
    if len(values) < 2:
        return (values or [math.nan])[0], len(values), np.zeros(DRAWS)
    errors = _errors([values, *(row for row in others if len(row) > 1)], seed=crc32(str(quantity).encode()))
    return float(np.mean(values)), len(values), errors[:, 0]


def _errors(rows: Sequence[Sequence[float]], seed: int) -> Floats:
    """(DRAWS, rows): draws of the errors of the means of rows, each of two seeds or more."""
    scores = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        scores[i, : len(row)] = row
    return errors_of_means(scores, DRAWS, seed)


def _margin(margin: Margin, measured: Measured) -> Known:
    """From draws of the errors of all means, in which another of the cheaper ones may be the best.

    The best of several means is above the best of the true ones, and that of draws above that of the means: errors are
    taken the other way round, as the basic bootstrap does (Davison & Hinkley 1997, section 5.2). Where 1 to 8 rivals
    are equal, intervals of 95% cover .92 to .98, where errors as they are drawn cover .98 down to .66.
    """
    points = measured.points(margin)
    own = next((i for i, point in enumerate(points) if point[:2] == (margin.margin, margin.track)), -1)
    cheaper = [i for i, point in enumerate(points) if own >= 0 and i != own and point.cost <= points[own].cost]
    if not cheaper:
        return math.nan, 0, np.zeros(DRAWS)
    seeds = min(len(point.scores) for point in points if point.track)
    means, errors = np.array([np.mean(point.scores) for point in points]), np.zeros((DRAWS, len(points)))
    for at, track in enumerate(dict.fromkeys(point.track for point in points if point.track) if seeds > 1 else ()):
        places = [i for i, point in enumerate(points) if point.track == track]
        errors[:, places] = _errors([points[i].scores for i in places], seed=at)

    def ahead(scores: Float[np.ndarray, "*draws points"]) -> Float[np.ndarray, "*draws"]:
        return scores[..., own] - scores[..., cheaper].max(-1)

    mean = float(ahead(means))
    return mean, seeds, mean - ahead(means + errors)


def _shares(cells: Float[np.ndarray, "rows tasks tracks seeds"]) -> dict[str, Known]:
    """Of the variance of means what each factor explains; nothing where a cell lacks scores."""
    seeds = int((~np.isnan(cells)).sum(-1).min(initial=cells.shape[-1]))
    names = {factor: str(Share(share=factor)) for factor in FACTORS}
    if not cells.size or not seeds:
        return {name: (math.nan, 0, np.zeros(DRAWS)) for name in names.values()}
    means, errors = np.nanmean(cells, axis=-1), np.zeros((DRAWS, 1, 1, 1))
    if seeds > 1:
        _, tasks, tracks, _ = cells.shape
        drawn = [[errors_of_means(cells[:, i, j], DRAWS, i * tracks + j) for j in range(tracks)] for i in range(tasks)]
        errors = np.moveaxis(np.array(drawn), (2, 3), (0, 1))
    found = {}
    for factor, name in names.items():
        mean = explained(means, factor)
        found[name] = float(mean), seeds, explained(means + errors, factor) - mean
    return found


def explained(means: Float[np.ndarray, "*draws rows tasks tracks"], factor: Factor) -> Float[np.ndarray, "*draws"]:
    """The share of the variance of means that a factor explains."""
    own = FACTORS.index(factor) - len(FACTORS)
    levels = means.mean(tuple({-3, -2, -1} - {own}))
    return levels.var(-1) / means.var((-3, -2, -1))


def _finding(low: float, high: float, bounds: tuple[float, float]) -> Finding:
    if bounds[0] <= low and high <= bounds[1]:
        return "holds"
    return "fails" if high < bounds[0] or low > bounds[1] else "undecided"


def _needs(mean: float, error: float, seeds: int, bounds: tuple[float, float]) -> int | None:
    """The seeds at which an interval about this mean reaches no bound; errors go with the root of their number."""
    more = np.arange(seeds + 1, MOST_SEEDS + 1)
    half = special.stdtrit(more - 1, 1 - level() / 2) * error * np.sqrt(seeds / more)
    enough = more[half < min(abs(mean - bound) for bound in bounds)]
    return int(enough[0]) if len(enough) else None
