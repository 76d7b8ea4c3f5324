"""Plots over several tasks, in the style of those of one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from harness.board.across.model import Across, Race
from harness.board.plots import GREY, Style, _figure, _svg
from harness.stats import across as stats

PLAIN = (GREY, "-", "o")
"""The look of an architecture that is ranked nowhere."""


def profile(across: Across, style: Style) -> str:
    """Fraction of runs at or above each normalised score."""
    if not across.scales:
        return ""
    ends = [score for row in across.rows for runs in row.normalised.values() for score in runs]
    taus = np.linspace(0, min(max(1.05, 1.02 * max(ends, default=1.0)), 2.0), 800)
    lines = [(row.architecture, stats.profile(list(row.normalised.values()), taus)) for row in across.rows]
    return _steps(lines, taus, style, "normalised score τ", "fraction of runs ≥ τ", f"{across.track} profile")


def race(found: Race, track: str, style: Style) -> str:
    """Fraction of tasks on which the target is reached within τ times the reference's time."""
    taus = np.linspace(0, stats.TAU, 800)
    ratios = {row.architecture: [math.inf if r is None else r for r in row.ratios.values()] for row in found.rows}
    lines = [(a, stats.time_profile(own, taus)) for a, own in ratios.items()]
    return _steps(lines, taus, style, "τ, times the reference's time", "fraction of tasks reached", f"{track} race")


def _steps(lines: Sequence[tuple[str, np.ndarray]], taus: np.ndarray, style: Style, x: str, y: str, key: str) -> str:
    with _figure(3.1 + 0.19 * -(-len(lines) // 3)) as (figure, axes):
        axes.axvline(1, color=GREY, linewidth=0.9, linestyle=(0, (3, 2)))
        for i, (name, heights) in enumerate(lines):
            aside = 0.004 * ((len(lines) - 1) / 2 - i)  # so that lines that coincide are all seen
            colour, dashes, _ = style.get(name, PLAIN)
            axes.plot(
                taus, heights + aside, color=colour, linestyle=dashes, linewidth=1.5, label=name, drawstyle="steps-post"
            )
        axes.set_xlim(0, float(taus[-1]))
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=2.6)
        return _svg(figure, key)


def critical_difference(across: Across) -> str:
    """Mean ranks on one line, the best on the left; a bar joins those that are not separated (Demšar 2006)."""
    if across.ranking is None:
        return ""
    rows = sorted(across.rows, key=lambda row: (row.rank, row.architecture))
    place = {row.architecture: row.rank for row in rows}
    k, bars = len(rows), across.ranking.groups
    top, half = 0.5 + 0.32 * len(bars), -(-k // 2)
    with _figure(1.0 + 0.2 * (top + half)) as (figure, axes):
        axes.set_xlim(1 - 0.42 * (k - 1), k + 0.42 * (k - 1))
        axes.set_ylim(top + half + 0.2, -2.2)
        axes.axis("off")
        _ruler(axes, k, across.ranking.difference)
        for i, bar in enumerate(bars):
            ends = [place[bar[0]] - 0.012 * k, place[bar[-1]] + 0.012 * k]
            axes.plot(ends, [0.45 + 0.32 * i] * 2, color=GREY, linewidth=3.2, solid_capstyle="butt")
        for i, row in enumerate(rows):
            left = i < half
            depth = top + 0.5 + (i if left else k - 1 - i)
            edge = 1 - 0.06 * (k - 1) if left else k + 0.06 * (k - 1)
            axes.plot([row.rank, row.rank, edge], [0, depth, depth], color=GREY, linewidth=0.7)
            side = "right" if left else "left"
            text = f"{row.architecture}  {row.rank:.2f}" if left else f"{row.rank:.2f}  {row.architecture}"
            axes.annotate(text, (edge, depth), (-3 if left else 3, 0), textcoords="offset points", ha=side, va="center")
        return _svg(figure, f"{across.track} critical difference")


def _ruler(axes: Axes, k: int, difference: float) -> None:
    """The line of ranks, and above it the length of the critical difference."""
    axes.plot([1, k], [0, 0], color=GREY, linewidth=0.9)
    step = -(-k // 12)
    for rank in range(1, k + 1):
        axes.plot([rank, rank], [0, -0.18], color=GREY, linewidth=0.7)
        if rank == 1 or rank % step == 0:
            axes.annotate(str(rank), (rank, -0.25), ha="center", va="bottom", fontsize=8)
    axes.plot([1, 1 + difference], [-1.55, -1.55], color=GREY, linewidth=1.4, marker="|", markersize=5)
    axes.annotate(f"critical difference {difference:.2f}", (1, -1.75), ha="left", va="bottom", fontsize=8)
