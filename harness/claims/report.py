"""Claims as tables: one of all, and one for each, in the form that the terminal and the site write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from harness.board.tables import Cell, Column, Note, Section, cell, lines, name_column
from harness.claims.plan import Contrast, Scale, claims
from harness.claims.quantities import read, suite_of
from harness.claims.verdict import CLAIMS, Effect, Judged, judge_claim, level
from harness.units import NONE, clock


def judged(names: Sequence[str] = (), scale: Scale = "small", root: Path | None = None) -> list[Judged]:
    """The verdicts on these claims, or on all.

    Raises:
        UserError: what was measured cannot be read.
    """
    return [judge_claim(name, read(name, scale, root)) for name in names or claims()]


def overview(found: Sequence[Judged]) -> Section:
    """All claims, a line each."""
    columns = (
        name_column(lambda one: one.name, "claim"),
        name_column(lambda one: one.verdict, "verdict"),
        name_column(lambda one: one.claim.says, "as it was made"),
        Column("cost", lambda one: cell(one.measured.seconds or None, clock), "seconds of training or measuring"),
    )
    note = f"intervals are of {1 - level():.1%}: {CLAIMS} claims together err with at most 5% (Bonferroni)"
    return Section(None, "Claims", columns=columns, lines=lines(columns, found), notes=[Note(note)])


def details(one: Judged, scale: Scale) -> Section:
    """One claim: its contrasts, what was measured of each, and how to do it again."""
    columns = (
        name_column(lambda effect: effect.contrast.says, "contrast"),
        name_column(lambda effect: wanted(effect.contrast), "decided by"),
        Column("measured", lambda effect: cell(effect.mean, "{:.3g}".format)),
        Column("interval", lambda effect: Cell(interval(effect), effect.low)),
        Column("seeds", lambda effect: cell(effect.seeds or None, str)),
        name_column(lambda effect: effect.finding, ""),
    )
    said = [*map(_needs, one.effects), *_sources(one, scale)]
    notes = [Note(line) for line in said if line]
    return Section(one, f"{one.name}: {one.verdict}", one.claim.says, columns, lines(columns, one.effects), notes)


def wanted(contrast: Contrast) -> str:
    """The quantity, or the difference, and its bounds."""
    low, high = contrast.bounds
    bounds = f"> {low:g}" if high == math.inf else f"< {high:g}" if low == -math.inf else f"from {low:g} to {high:g}"
    return f"{' − '.join(map(str, contrast.quantities))} {bounds}"


def interval(effect: Effect) -> str:
    """From low to high; a dash where one seed, or none, tells no scatter."""
    return NONE if effect.low is None or effect.high is None else f"{effect.low:.3g} to {effect.high:.3g}"


def _needs(effect: Effect) -> str:
    if effect.finding != "undecided":
        return ""
    if effect.seeds < 2:
        return f"{effect.contrast.says}: one seed has no interval"
    many = "more seeds than anyone makes" if effect.needs is None else f"about {effect.needs} seeds"
    return f"{effect.contrast.says}: {many} would decide it if the mean stayed"


def _sources(one: Judged, scale: Scale) -> list[str]:
    claim, measured = one.claim, one.measured
    what = f"suite {suite_of(claim, scale)}" if claim.suite else f"experiment {claim.experiment}"
    cost = f"; {clock(measured.seconds)} in all" if measured.seconds else ""
    said = [f"{what}{cost}; again: zoobench claims {one.name} --scale {scale} --run"]
    said += [f"made by {made}" for made in measured.made]
    return said + [f"left out: {run}" for run in measured.left_out]
