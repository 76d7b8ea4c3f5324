"""Plots of one task, of one task over its tracks, and of several tasks."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from harness.board import tuning
from harness.board.comparable import by_architecture
from harness.board.drawing import GREY, HEIGHT, SMALL, Looks, figure, figure_with_legend, line_plot, svg, width_of
from harness.board.model import Aggregate, Contrast, TaskBoard, TimeToTarget
from harness.board.rows import Row, finite
from harness.records.record import CurvePoint, Record
from harness.stats import aggregate as stats
from harness.units import human


def dots(board: TaskBoard, looks: Looks) -> str:
    """Mean and 95% interval of every ranked architecture, best on top, baselines as lines."""
    rows = [row for row in board.ranked if row.mean is not None]
    if not rows:
        return ""
    with figure(0.27 * len(rows) + 1.1) as (drawn, axes):
        for y, row in enumerate(rows):
            colour = looks[row.architecture].colour
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
            axes.plot(row.scores, [y] * len(row.scores), "|", color=colour, markersize=6, alpha=0.55, markeredgewidth=1)
            axes.plot([row.mean or 0.0], [y], "o", color=colour, markersize=5.5)
        axes.set_yticks(range(len(rows)), [row.architecture for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        _grid(axes)
        _baselines(drawn, axes, board, rows)
        axes.set_xlabel(board.direction)
    return svg(drawn, f"{board.title} dots")


def _grid(axes: Axes) -> None:
    axes.grid(axis="y", color=GREY, alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)


def _baselines(drawn: Figure, axes: Axes, board: TaskBoard, rows: Sequence[Row]) -> None:
    """Only those near the scores: a far one would squeeze the rest into a corner. Names that would meet are stacked."""
    ends = [v for row in rows for v in (*row.scores, row.low, row.high) if v is not None]
    span = max(max(ends) - min(ends), 1e-9)
    near = [line for line in board.lines if min(ends) - 0.8 * span <= line.value <= max(ends) + 0.8 * span]
    for line in near:
        axes.axvline(line.value, color=GREY, linewidth=0.9, linestyle=(0, (3, 2)))
    drawn.draw_without_rendering()
    reached: list[float] = []  # where the names on each level end, in points
    for line in sorted(near, key=lambda line: line.value):
        at, where = (line.value, 1), axes.get_xaxis_transform()
        name = axes.annotate(line.name, at, (0, 3), where, "offset points", ha="center", va="bottom", fontsize=SMALL)
        box = name.get_window_extent()
        level = next((i for i, end in enumerate(reached) if box.x0 > end + 4), len(reached))
        reached[level : level + 1] = [box.x1]
        name.set_position((0, 3 + 10 * level))


def curves(board: TaskBoard, records: Sequence[Record], looks: Looks) -> str:
    """Validation score (training loss where there is none) against tokens, averaged over the seeds."""
    runs = {row.architecture: by_architecture(records).get(row.architecture, []) for row in board.ranked}
    metric = records[0].metrics.primary if records else board.metric
    label = f"{metric} on valid"
    series = _averages(runs, lambda point: (point.valid or {}).get(metric))
    if len(series) < len(runs):
        label = "training loss, nats"
        series = _averages(runs, lambda point: point.loss)
    if not series:
        return ""

    with line_plot(series, looks, "tokens", label) as (drawn, axes):
        axes.xaxis.set_major_formatter(lambda value, _: human(value) if value > 0 else "0")
        axes.set_xlim(left=0)
        # the last nine tenths of training in full; the first fall may leave the frame
        late = np.concatenate([y[x >= x[-1] / 10] for x, y in series.values()])
        margin = 0.05 * max(float(np.ptp(late)), 1e-9)
        axes.set_ylim(float(late.min()) - margin, float(late.max()) + margin)
    return svg(drawn, f"{board.title} curves")


Read = Callable[[CurvePoint], "float | None"]


def _averages(runs: Mapping[str, Sequence[Record]], read: Read) -> dict[str, tuple[Any, Any]]:
    return {name: line for name, own in runs.items() if (line := average(own, read)) is not None}


def average(runs: Sequence[Record], read: Read) -> tuple[Any, Any] | None:
    """Tokens and the mean over the seeds, on the first seed's grid where all seeds have been."""
    series = []
    for run in runs:
        points = [(point.tokens, value) for point in run.curve if (value := finite(read(point))) is not None]
        if len(points) > 1:
            series.append(np.array(sorted(points), dtype=np.float64).T)
    if not series:
        return None
    grid = series[0][0]
    grid = grid[(grid >= max(s[0][0] for s in series)) & (grid <= min(s[0][-1] for s in series))]
    if len(grid) < 2:
        return None
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, min(len(grid), 200)).astype(int))]
    return grid, np.mean([np.interp(grid, *s) for s in series], axis=0)


def cost(board: TaskBoard, looks: Looks) -> str:
    """Score against what one seed cost, with all trials of its row: FLOPs, or seconds where FLOPs were not counted."""
    counted = all(row.flops for row in board.ranked)
    unit, label = ("FLOP", "compute") if counted else ("s", "seconds")
    costs = [(total_cost(row, counted=counted), row) for row in board.ranked]
    points = [(x, row.mean, row) for x, row in costs if x and row.mean is not None]
    if not points:
        return ""
    with figure(max(HEIGHT, 1.4 + 0.16 * len(points))) as (drawn, axes):
        for x, y, row in points:
            look = looks[row.architecture]
            if row.low is not None and row.high is not None:
                axes.plot([x, x], [row.low, row.high], color=look.colour, linewidth=1, alpha=0.6)
            axes.plot([x], [y], look.marker, color=look.colour, markersize=5.5)
        if max(x for x, *_ in points) > 8 * min(x for x, *_ in points):
            axes.set_xscale("log")
        else:
            axes.locator_params(axis="x", nbins=5)
        axes.margins(x=0.16, y=0.08)
        axes.xaxis.set_major_formatter(lambda value, _: human(value, unit, figures=3))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        tuned = any(row.trials for row in board.ranked)
        axes.set_xlabel(f"{label} to tune and to train one seed" if tuned else f"{label} to train one seed")
        axes.set_ylabel(board.metric)
        _name_points(drawn, axes, [(x, y, row.architecture) for x, y, row in points])
    return svg(drawn, f"{board.title} cost")


def total_cost(row: Row, *, counted: bool = True) -> float | None:
    """FLOPs (or seconds) of one seed's training and of every trial of the row."""
    final, tried = (row.flops, row.tuning_flops) if counted else (row.seconds, row.tuning_seconds)
    return None if final is None else final + (tried or 0.0)


def _name_points(drawn: Figure, axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Label points inside the axes; a label without room beside its point moves away and gets a leader line."""
    drawn.draw_without_rendering()
    at = {name: axes.transData.transform((x, y)) for x, y, name in points}
    taken = [Bbox.from_bounds(px - 3, py - 3, 6, 6) for px, py in at.values()]
    leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3}
    for x, y, name in sorted(points, key=lambda p: (-p[1], p[0], p[2])):
        box = _free(at[name], width_of(name), axes.get_window_extent(), taken)
        taken.append(box)
        side, edge = ("left", box.x0) if box.x0 > at[name][0] else ("right", box.x1)
        offset = (edge - at[name][0], (box.y0 + box.y1) / 2 - at[name][1])
        arrow = leader if abs(offset[1]) > SMALL else None
        text = axes.annotate(name, (x, y), offset, textcoords="offset points", ha=side, va="center", arrowprops=arrow)
        text.set(fontsize=SMALL, in_layout=False)


def _free(at: Any, width: float, frame: Bbox, taken: Sequence[Bbox]) -> Bbox:
    """The nearest free box for a label left or right of its point, searched upwards and downwards."""
    x, y = at

    def box(left: float, dy: float) -> Bbox:
        return Bbox.from_bounds(left, y + dy - SMALL / 2, width, SMALL)

    steps = (dy for step in range(int(frame.height)) for dy in (step, -step))
    boxes = (box(left, dy) for dy in steps for left in (x + 5, x - 5 - width))
    inside = (b for b in boxes if frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1)
    return next((b for b in inside if not b.count_overlaps(taken)), box(x + 5, 0))


def best_of(board: TaskBoard, trials: Sequence[Record], looks: Looks) -> str:
    """The expected best score of k trials against k, for each architecture: what more tuning would bring."""
    series = {name: (range(1, len(values) + 1), values) for name, values in tuning.best_of(board, trials).items()}
    if not series:
        return ""
    with line_plot(series, looks, "trials", f"expected best {board.metric}", markers=True) as (drawn, axes):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return svg(drawn, f"{board.title} trials")


def track_ranks(contrast: Contrast, looks: Looks) -> str:
    """The ranks each architecture may hold in each track: a bar from first to last, lines between their middles."""
    names = [name for name, spans in contrast.places.items() if any(spans)]
    if not names:
        return ""
    with figure_with_legend(0.18 * len(names) + 1.6, names) as (drawn, axes):
        for i, name in enumerate(names):
            colour, dashes, marker = looks[name]
            shift = 0.5 * ((i + 0.5) / len(names) - 0.5)
            points = [(x + shift, span) for x, span in enumerate(contrast.places[name]) if span is not None]
            middles = [sum(span) / 2 for _, span in points]
            line = {"color": colour, "linestyle": dashes, "linewidth": 0.8, "marker": marker, "markersize": 4.5}
            axes.plot([x for x, _ in points], middles, label=name, **line)
            for x, span in points:
                axes.plot([x, x], span, color=colour, linewidth=2.2, alpha=0.45, solid_capstyle="round")
        axes.set_xticks(range(len(contrast.tracks)), contrast.tracks)
        axes.set_xlim(-0.5, len(contrast.tracks) - 0.5)
        axes.set_ylim(len(names) + 0.5, 0.5)
        axes.set_yticks(range(1, len(names) + 1))
        axes.set_ylabel("rank")
        _grid(axes)
    return svg(drawn, f"{contrast.task} ranks")


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
