"""Plots over several tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from harness.board.drawing import GREY, SMALL, Looks, figure, line_plot, svg
from harness.board.model import Aggregate, TimeToTarget
from harness.stats import aggregate as stats


def profile(found: Aggregate, looks: Looks) -> str:
    """The fraction of runs at or above each normalised score."""
    if not found.scales:
        return ""
    best = max((score for row in found.rows for runs in row.normalised.values() for score in runs), default=1.0)
    taus = np.linspace(0, min(max(1.05, 1.02 * best), 2.0), 800)
    heights = {row.architecture: stats.profile(list(row.normalised.values()), taus) for row in found.rows}
    return _steps(heights, taus, looks, "normalised score τ", "fraction of runs ≥ τ", f"{found.track} profile")


def times(found: TimeToTarget, looks: Looks, track: str) -> str:
    """The fraction of tasks on which the target is reached within τ times the reference's time."""
    taus = np.linspace(0, stats.TAU, 800)
    ratios = {row.architecture: [math.inf if r is None else r for r in row.ratios.values()] for row in found.rows}
    heights = {name: stats.time_profile(own, taus) for name, own in ratios.items()}
    return _steps(heights, taus, looks, "τ, times the reference's time", "fraction of tasks reached", f"{track} times")


def _steps(heights: Mapping[str, np.ndarray], taus: np.ndarray, looks: Looks, x: str, y: str, key: str) -> str:
    """Lines that coincide are drawn side by side, so that all are seen."""
    middle = (len(heights) - 1) / 2
    series = {name: (taus, own + 0.004 * (middle - i)) for i, (name, own) in enumerate(heights.items())}

    with line_plot(series, looks, x, y, drawstyle="steps-post") as (drawn, axes):
        axes.axvline(1, color=GREY, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
        axes.set_xlim(0, float(taus[-1]))
        axes.set_ylim(-0.03, 1.03)
    return svg(drawn, key)


def critical_difference(found: Aggregate) -> str:
    """Mean ranks on one line, the best on the left; a bar joins those that are not separated (Demšar 2006)."""
    if found.ranking is None:
        return ""
    rows = sorted(found.rows, key=lambda row: (row.rank, row.architecture))
    ranks = {row.architecture: row.rank for row in rows}
    k, bars = len(rows), found.ranking.groups
    top, half = 0.5 + 0.32 * len(bars), -(-k // 2)
    with figure(1.0 + 0.2 * (top + half)) as (drawn, axes):
        axes.set_xlim(1 - 0.42 * (k - 1), k + 0.42 * (k - 1))
        axes.set_ylim(top + half + 0.2, -2.2)
        axes.axis("off")
        _ruler(axes, k, found.ranking.difference)
        for i, bar in enumerate(bars):
            ends = [ranks[bar[0]] - 0.012 * k, ranks[bar[-1]] + 0.012 * k]
            axes.plot(ends, [0.45 + 0.32 * i] * 2, color=GREY, linewidth=3.2, solid_capstyle="butt")
        for i, row in enumerate(rows):
            left = i < half
            depth = top + 0.5 + (i if left else k - 1 - i)
            edge = 1 - 0.06 * (k - 1) if left else k + 0.06 * (k - 1)
            axes.plot([row.rank, row.rank, edge], [0, depth, depth], color=GREY, linewidth=0.7)
            side = "right" if left else "left"
            text = f"{row.architecture}  {row.rank:.2f}" if left else f"{row.rank:.2f}  {row.architecture}"
            axes.annotate(text, (edge, depth), (-3 if left else 3, 0), textcoords="offset points", ha=side, va="center")
    return svg(drawn, f"{found.track} critical difference")


def _ruler(axes: Axes, k: int, difference: float) -> None:
    """The line of ranks, and above it the length of the critical difference."""
    axes.plot([1, k], [0, 0], color=GREY, linewidth=0.9)
    step = -(-k // 12)
    for rank in range(1, k + 1):
        axes.plot([rank, rank], [0, -0.18], color=GREY, linewidth=0.7)
        if rank == 1 or rank % step == 0:
            axes.annotate(str(rank), (rank, -0.25), ha="center", va="bottom", fontsize=SMALL)
    axes.plot([1, 1 + difference], [-1.55, -1.55], color=GREY, linewidth=1.4, marker="|", markersize=5)
    axes.annotate(f"critical difference {difference:.2f}", (1, -1.75), ha="left", va="bottom", fontsize=SMALL)
