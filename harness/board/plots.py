"""Plots of one task as inline SVG: no background, text in the page's font, axes in the page's own muted colour."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.board import gather, tuning
from harness.board.gather import Record, dig
from harness.board.model import Contrast, Row, TaskBoard
from harness.board.tables import direction, human

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#A09000")
"""Okabe and Ito's palette without black and yellow, which vanish on one of the two page colours."""
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKS = "osD^vPX"
GREY = "#808080"
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "text.parse_math": False,
}
WIDTH = 5.2
Style = Mapping[str, tuple[str, Any, str]]
"""Colour, dashes and marker of each architecture."""


def styles(names: Sequence[str]) -> dict[str, tuple[str, Any, str]]:
    """The same look for one architecture in every plot of a page."""
    n = len(OKABE_ITO)
    return {a: (OKABE_ITO[i % n], DASHES[i // n % len(DASHES)], MARKS[i % len(MARKS)]) for i, a in enumerate(names)}


def dots(board: TaskBoard, style: Style) -> str:
    """Mean and 95% interval of every ranked architecture, best on top, baselines as lines."""
    rows = [row for row in board.rows if row.ranked and row.mean is not None]
    if not rows:
        return ""
    with _figure(0.27 * len(rows) + 1.1) as (figure, axes):
        _dots(axes, rows, style)
        _baselines(figure, axes, board, rows)
        axes.set_xlabel(direction(board))
        return _svg(figure, f"{board.title} dots")


def _dots(axes: Axes, rows: Sequence[Row], style: Style) -> None:
    for y, row in enumerate(rows):
        colour = style[row.architecture][0]
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot(row.scores, [y] * len(row.scores), "|", color=colour, markersize=6, alpha=0.55, markeredgewidth=1)
        axes.plot([row.mean or 0.0], [y], "o", color=colour, markersize=5.5)
    axes.set_yticks(range(len(rows)), [row.architecture for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=GREY, alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)


def _baselines(figure: Figure, axes: Axes, board: TaskBoard, rows: Sequence[Row]) -> None:
    """Only those near the scores: a far one would squeeze the rest into a corner. Names that would meet are stacked."""
    ends = [v for row in rows for v in (*row.scores, row.low, row.high) if v is not None]
    span = max(max(ends) - min(ends), 1e-9)
    near = [line for line in board.lines if min(ends) - 0.8 * span <= line.value <= max(ends) + 0.8 * span]
    for line in near:
        axes.axvline(line.value, color=GREY, linewidth=0.9, linestyle=(0, (3, 2)))
    figure.draw_without_rendering()
    reached: list[float] = []  # where the names on each level end, in pixels
    for line in sorted(near, key=lambda line: line.value):
        name = axes.annotate(
            line.name,
            (line.value, 1),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            xytext=(0, 3),
            ha="center",
            va="bottom",
            fontsize=8,
        )
        box = name.get_window_extent()
        level = next((i for i, end in enumerate(reached) if box.x0 > end + 4), len(reached))
        reached[level : level + 1] = [box.x1]
        name.set_position((0, 3 + 10 * level))


def curves(board: TaskBoard, records: Sequence[Record], style: Style) -> str:
    """Validation score (training loss where there is none) against tokens, averaged over the seeds."""
    ranked = {row.architecture for row in board.rows if row.ranked}
    runs = {a: own for a, own in gather.grouped(records).items() if a in ranked}
    metric = next((dig(r, "metrics.primary") for r in records), board.metric)
    path, label = f"valid.{metric}", f"{metric} on valid"
    lines = {a: line for a, own in runs.items() if (line := _average(own, path)) is not None}
    if len(lines) < len(runs):
        path, label = "loss", "training loss, nats"
        lines = {a: line for a, own in runs.items() if (line := _average(own, path)) is not None}
    if not lines:
        return ""
    legend = -(-len(lines) // 3)
    with _figure(3.1 + 0.19 * legend) as (figure, axes):
        for a in [row.architecture for row in board.rows if row.architecture in lines]:
            colour, dashes, _ = style[a]
            axes.plot(*lines[a], color=colour, linestyle=dashes, linewidth=1.5, label=a)
        axes.set_xlabel("tokens")
        axes.set_ylabel(label)
        axes.xaxis.set_major_formatter(lambda value, _: human(value) if value > 0 else "0")
        axes.set_xlim(left=0)
        _zoom(axes, lines)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=2.6)
        return _svg(figure, f"{board.title} curves")


def _zoom(axes: Axes, lines: Mapping[str, tuple[Any, Any]]) -> None:
    """Show the last nine tenths of training in full; the first fall may leave the frame."""
    late = np.concatenate([y[x >= x[-1] / 10] for x, y in lines.values()])
    margin = 0.05 * max(float(np.ptp(late)), 1e-9)
    axes.set_ylim(float(late.min()) - margin, float(late.max()) + margin)


def _average(runs: Sequence[Record], path: str) -> tuple[Any, Any] | None:
    """Tokens and the mean over the seeds, on the first seed's grid where all seeds have been."""
    series = []
    for run in runs:
        points = [(dig(p, "tokens"), gather.finite(dig(p, path))) for p in run.get("curve") or []]
        points = [(x, y) for x, y in points if x is not None and y is not None]
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


def cost(board: TaskBoard, style: Style) -> str:
    """Score against what one seed cost, with all trials of its row: FLOPs, or seconds where FLOPs were not counted."""
    rows = [row for row in board.rows if row.ranked]
    counted = all(row.flops for row in rows)
    unit, label = ("FLOP", "compute") if counted else ("s", "seconds")
    costs = [total_cost(row, counted=counted) for row in rows]
    points = [(x, row.mean, row) for x, row in zip(costs, rows, strict=True) if x and row.mean is not None]
    if not points:
        return ""
    with _figure(3.4) as (figure, axes):
        for x, y, row in points:
            colour, _, mark = style[row.architecture]
            if row.low is not None and row.high is not None:
                axes.plot([x, x], [row.low, row.high], color=colour, linewidth=1, alpha=0.6)
            axes.plot([x], [y], mark, color=colour, markersize=5.5)
        if max(x for x, *_ in points) > 8 * min(x for x, *_ in points):
            axes.set_xscale("log")
        else:
            axes.locator_params(axis="x", nbins=5)
        axes.margins(x=0.16, y=0.08)
        axes.xaxis.set_major_formatter(lambda value, _: human(value, unit, figures=3))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        tuned = any(row.trials for *_, row in points)
        axes.set_xlabel(f"{label} to tune and to train one seed" if tuned else f"{label} to train one seed")
        axes.set_ylabel(board.metric)
        _labels(figure, axes, [(x, y, row.architecture) for x, y, row in points])
        return _svg(figure, f"{board.title} cost")


def total_cost(row: Row, *, counted: bool = True) -> float | None:
    """FLOPs (or seconds) of one seed's training and of every trial of the row."""
    final, tried = (row.flops, row.tuning_flops) if counted else (row.seconds, row.tuning_seconds)
    return None if final is None else final + (tried or 0.0)


def best_of(board: TaskBoard, trials: Sequence[Record], style: Style) -> str:
    """The expected best score of k trials against k: what more tuning would have brought, and to whom."""
    lines = tuning.best_of(board, trials)
    if not lines:
        return ""
    with _figure(3.1 + 0.19 * -(-len(lines) // 3)) as (figure, axes):
        for a in [row.architecture for row in board.rows if row.architecture in lines]:
            colour, dashes, mark = style[a]
            counts = range(1, len(lines[a]) + 1)
            axes.plot(counts, lines[a], mark, color=colour, linestyle=dashes, linewidth=1.5, markersize=3.5, label=a)
        axes.set_xlabel("trials")
        axes.set_ylabel(f"expected best {board.metric}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=2.6)
        return _svg(figure, f"{board.task} trials")


def _labels(figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Names beside their points; one that would cover a name already there is moved down."""
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    taken: list[tuple[float, float]] = []
    for x, y, name in sorted(points, key=lambda p: (-p[1], p[0], p[2])):
        px, py = (float(v) * scale for v in axes.transData.transform((x, y)))
        height = py
        while any(abs(px - qx) < 5.2 * max(len(name), 8) and abs(height - qy) < 9 for qx, qy in taken):
            height -= 1
        taken.append((px, height))
        axes.annotate(name, (x, y), (5, height - py), textcoords="offset points", va="center", fontsize=8)


def places(contrast: Contrast, style: Style) -> str:
    """The places each architecture may hold in each track: a bar from first to last, lines between their middles."""
    names = [name for name, spans in contrast.places.items() if any(spans)]
    if not names:
        return ""
    with _figure(0.24 * len(names) + 1.6) as (figure, axes):
        for i, name in enumerate(names):
            colour, dashes, mark = style[name]
            shift = 0.5 * ((i + 0.5) / len(names) - 0.5)
            points = [(x + shift, span) for x, span in enumerate(contrast.places[name]) if span is not None]
            axes.plot(
                [x for x, _ in points],
                [sum(span) / 2 for _, span in points],
                color=colour,
                linestyle=dashes,
                linewidth=0.8,
                marker=mark,
                markersize=4.5,
                label=name,
            )
            for x, span in points:
                axes.plot([x, x], span, color=colour, linewidth=2.2, alpha=0.45, solid_capstyle="round")
        axes.set_xticks(range(len(contrast.tracks)), contrast.tracks)
        axes.set_xlim(-0.5, len(contrast.tracks) - 0.5)
        axes.set_ylim(len(names) + 0.5, 0.5)
        axes.set_yticks(range(1, len(names) + 1))
        axes.set_ylabel("place")
        axes.grid(axis="y", color=GREY, alpha=0.18, linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=2.6)
        return _svg(figure, f"{contrast.task} places")


@contextmanager
def _figure(height: float) -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.subplots()


def _svg(figure: Figure, key: str) -> str:
    """The bare element: no prolog, metadata or fixed size; ids made unique on the page; same bytes every time."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": key}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(<svg[^>]*?)\s+width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\s+height="[^"]*"', r"\1", text, count=1)
    prefix = re.sub(r"\W+", "-", key.encode("ascii", "xmlcharrefreplace").decode())
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    return text.replace(GREY, "var(--axis)").replace("<svg", f'<svg role="img" aria-label="{_attribute(key)}"', 1)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
