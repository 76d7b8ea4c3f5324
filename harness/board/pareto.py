"""Charts of score against a cost, with the line of what nothing cheaper beats."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import altair as alt

from harness.board.looks import GREY, Frame, interval, opacity, table, tip
from harness.board.model import TaskBoard
from harness.records.record import Record
from harness.table.rows import Row, total_cost
from harness.units import human

Point = tuple[Row, float]
"""A ranked row and what it cost."""


def cost(board: TaskBoard, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """Score against what one seed cost, with all trials of its row: FLOPs, or seconds where FLOPs were not counted."""
    counted = all(row.flops for row in board.ranked)
    what, unit = ("compute", "FLOP") if counted else ("seconds", "s")
    to = "to tune and to train one seed" if any(row.trials for row in board.ranked) else "to train one seed"
    return _chart(board, [(row, total_cost(row, counted=counted)) for row in board.ranked], f"{what} {to}", unit, frame)


def state(board: TaskBoard, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """Score against what decoding carries from one step to the next, where anything can be carried."""
    return _chart(board, [(row, row.state_bytes) for row in board.ranked], "recurrent state", "B", frame)


def decode(board: TaskBoard, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """Score against the seconds of a decoded token, where all were measured on one machine."""
    return _chart(board, [(row, row.decode_seconds) for row in board.ranked], "time of a decoded token", "s", frame)


def latency(board: TaskBoard, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """Score against the seconds of an answer, where all were measured on one machine."""
    return _chart(board, [(row, row.latency_seconds) for row in board.ranked], "time to answer one example", "s", frame)


def _chart(
    board: TaskBoard, costs: Iterable[tuple[Row, float | None]], title: str, unit: str, frame: Frame
) -> alt.LayerChart | None:
    points = [(row, float(x)) for row, x in costs if x and row.mean is not None]
    if len(points) < 2:
        return None
    best, plot = front(board, points), Plot.around(points, frame.size)
    names = sorted(row.architecture for row, _ in points)
    every = {row.architecture: interval(row) | {"cost": x, "spent": human(x, unit, 3)} for row, x in points}
    leading = [every[row.architecture] for row, _ in best]
    x = alt.X(
        "cost:Q", title=f"{title}, {unit}", axis=alt.Axis(format="~s", tickCount=5, grid=not plot.log), scale=plot.x
    )
    y = alt.Y("score:Q", title=board.direction, scale=plot.y)
    own = {"x": x, "color": frame.colour(names), "opacity": opacity()}
    about = tip(architecture="architecture", said=board.metric, spent=title)
    beside = {name: {"expr": f"datum.{name}"} for name in ("align", "dx", "dy")}
    line = alt.Chart(table(leading)).mark_line(interpolate="step-after", color=GREY, strokeWidth=1, strokeDash=[3, 2])
    rules, marks = alt.Chart(table(every.values())).mark_rule(), alt.Chart(table(every.values())).mark_point()
    labels = alt.Chart(
        table(_labels(leading, points, plot, frame.letter, 10 if board.higher_is_better else -10))
    ).mark_text(baseline="middle", **beside)
    return frame.layers(
        line.encode(x=x, y=y, tooltip=alt.TooltipValue("nothing that costs less scores better")),
        rules.encode(y=alt.Y("low:Q"), y2="high:Q", tooltip=about, **own),
        marks.encode(y=y, shape=frame.shape(names), fill=frame.colour(names), tooltip=about, **own),
        labels.encode(x=x, y=y, text="architecture:N", opacity=opacity(), tooltip=about),
        height=frame.size[1],
        description=f"{board.title}: {_said(board, best, title, unit)}.",
    )


def _said(board: TaskBoard, best: Sequence[Point], title: str, unit: str) -> str:
    ends = [f"{row.architecture} ({row.mean:.4g} for {human(x, unit)})" for row, x in best[:: len(best) - 1 or 1]]
    return f"{board.metric} against {title}; nothing cheaper is better than {' nor than '.join(ends)}"


def front(board: TaskBoard, points: Iterable[Point]) -> list[Point]:
    """The Pareto front by means, cheapest first: each is better than all that cost as much or less."""
    found: list[Point] = []
    for row, x in sorted(points, key=lambda point: (point[1], board.cost(point[0].mean or 0.0))):
        if not found or board.cost(row.mean or 0.0) < board.cost(found[-1][0].mean or 0.0):
            found.append((row, x))
    return found


class Plot(NamedTuple):
    """The scales of a scatter plot: costs that differ by more than 8 times are logarithmic."""

    x: alt.Scale
    y: alt.Scale
    log: bool
    left: float
    right: float
    bottom: float
    top: float
    size: tuple[int, int]
    """Pixels."""

    @classmethod
    def around(cls, points: Sequence[Point], size: tuple[int, int]) -> "Plot":
        """Scales that hold all points and their intervals."""
        costs = [x for _, x in points]
        log = max(costs) > 8 * min(costs)
        left, right = _widened([math.log(x) if log else x for x in costs], 0.08)
        ends = [end for row, _ in points for end in (row.mean, row.low, row.high) if end is not None]
        bottom, top = _widened(ends, 0.06)
        domain = [math.exp(left), math.exp(right)] if log else [left, right]
        x = alt.Scale(domain=domain, nice=False, **({"type": "log"} if log else {"zero": False}))
        return cls(x, alt.Scale(domain=[bottom, top], nice=False, zero=False), log, left, right, bottom, top, size)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels from the upper left corner."""
        across = ((math.log(x) if self.log else x) - self.left) / (self.right - self.left)
        return self.size[0] * across, self.size[1] * (self.top - y) / (self.top - self.bottom)


def _widened(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = share * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def _labels(
    leading: Sequence[dict[str, Any]], points: Sequence[Point], plot: Plot, letter: float, off: int
) -> list[dict[str, Any]]:
    """Names beside their points where they cover no other point or name; one without room is left to the tooltip.

    `off` is down or up, to the side of a point where its line does not go on.
    """
    at = [plot.place(x, row.mean or 0.0) for row, x in points]
    taken, found = [(x - 4, y - 4, x + 4, y + 4) for x, y in at], []
    for item in leading:
        x, y = plot.place(item["cost"], item["score"])
        width = letter * len(item["architecture"])
        for align, dx, dy in (
            ("left", 5, off),
            ("right", -5, off),
            ("right", -8, 0),
            ("right", -5, -off),
            ("left", 8, 0),
        ):
            left = x + dx if align == "left" else x + dx - width
            box = (left, y + dy - 6, left + width, y + dy + 6)
            inside = box[0] >= 0 and box[2] <= plot.size[0] and box[1] >= 0 and box[3] <= plot.size[1]
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                found.append(item | {"align": align, "dx": dx, "dy": dy})
                break
    return found


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
