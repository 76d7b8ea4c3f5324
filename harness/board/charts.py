"""The charts of a board, in Vega-Lite: which there are, and which can be drawn of a section."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import altair as alt

from harness.board import pareto, suite_charts, task_charts
from harness.board.looks import Frame, choice, looks, opacity, table, tip
from harness.board.model import Aggregate, Board, Contrast, TaskBoard, TimeToTarget
from harness.board.ranking import table_of
from harness.board.tables import Section
from harness.records.record import Record


class Kind(NamedTuple):
    """A kind of chart."""

    caption: str
    draw: Callable[[Any, Sequence[Record], Frame], alt.LayerChart | None]
    """From a subject, its records and how it looks; None where there is nothing to draw."""
    subject: type
    """The part of a board that it shows, as `Section.subject` is."""


class Chart(NamedTuple):
    """A chart that was drawn."""

    name: str
    caption: str
    chart: alt.LayerChart


MOST_ROWS, BEST = 100, 40
"""Of more rows than MOST_ROWS a chart shows the best alone: names would cover each other, and points fill the page."""
COINCIDE = "lines that coincide are drawn side by side"
CHARTS = {
    "dots": Kind("Mean and 95% interval; ticks are seeds, dashed lines baselines", task_charts.dots, TaskBoard),
    "cost": Kind("Score against training cost; dashed through what nothing cheaper beats", pareto.cost, TaskBoard),
    "state": Kind(
        "Score against the state that decoding carries; dashed through what nothing smaller beats",
        pareto.state,
        TaskBoard,
    ),
    "decode": Kind(
        "Score against the time that decoding a token takes; dashed through what nothing faster beats",
        pareto.decode,
        TaskBoard,
    ),
    "latency": Kind(
        "Score against the time that an answer takes; dashed through what nothing faster beats",
        pareto.latency,
        TaskBoard,
    ),
    "curves": Kind("Learning curves: mean and range over seeds", task_charts.curves, TaskBoard),
    "learning_rates": Kind(
        "Trials: score against learning rate; filled what was chosen", task_charts.learning_rates, TaskBoard
    ),
    "best_of": Kind("Expected best of k trials on the tuning split, in any order", task_charts.best_of, TaskBoard),
    "track_ranks": Kind(
        "Ranks by what is held equal; a bar is what a row may hold", suite_charts.track_ranks, Contrast
    ),
    "profile": Kind(f"Performance profile: higher is better; {COINCIDE}", suite_charts.profile, Aggregate),
    "critical_difference": Kind(
        "Mean ranks; a bar joins what is not separated", suite_charts.critical_difference, Aggregate
    ),
    "times": Kind(f"Time to target: higher and further left is better; {COINCIDE}", suite_charts.times, TimeToTarget),
}


def of(
    section: Section, board: Board, records: Iterable[Record], width: int | str = "container", *, legend: bool = False
) -> list[Chart]:
    """The charts of a section that can be drawn, in the order of `CHARTS`; `records` has those of its table."""
    frame = Frame(looks(row.architecture for task in board.tasks for row in task.rows), width, legend)
    (subject, left), own = _best(section.subject), []
    if isinstance(subject, TaskBoard):
        names, key = {row.architecture for row in subject.rows}, (subject.task, subject.track)
        own = [r for r in records if r.spec.architecture_label in names and table_of(r) == key]
    kinds = {name: kind for name, kind in CHARTS.items() if isinstance(subject, kind.subject)}
    drawn = {name: kind.draw(subject, own, frame) for name, kind in kinds.items()}
    captions = {
        name: kind.caption + (f"; the {BEST} best rows of {left}" if left else "") for name, kind in kinds.items()
    }
    return [Chart(name, captions[name], chart) for name, chart in drawn.items() if chart is not None]


def _best(subject: Any) -> tuple[Any, int]:
    """The part of a board with its best rows alone, and of how many; 0 where all can be drawn."""
    if isinstance(subject, TaskBoard) and len(subject.ranked) > MOST_ROWS:
        return replace(subject, rows=subject.ranked[:BEST]), len(subject.ranked)
    if isinstance(subject, Contrast) and len(subject.places) > MOST_ROWS:
        return replace(subject, places=dict(islice(subject.places.items(), BEST))), len(subject.places)
    if isinstance(subject, Aggregate) and len(subject.rows) > MOST_ROWS:  # bars would join rows that are left out
        return replace(subject, rows=subject.rows[:BEST], ranking=None), len(subject.rows)
    if isinstance(subject, TimeToTarget) and len(subject.rows) > MOST_ROWS:
        return replace(subject, rows=subject.rows[:BEST]), len(subject.rows)
    return subject, 0


MEASURES = {"time": "training, ms a sequence", "memory": "peak memory of training, MB"}


def lengths(rows: Sequence[dict[str, Any]], frame: Frame) -> alt.LayerChart | None:
    """Time and memory against length, both logarithmic, of rows of `bench`; None with fewer than two lengths."""
    good = [row for row in rows if row["status"] == "ok"]
    several = {name for name in {row["architecture"] for row in good} if len(_lengths_of(good, name)) > 1}
    points = [
        {
            "architecture": row["architecture"], "length": row["length"], "slope": f"{row['time_slope']:.2f}",
            "time": 1e3 * row["length"] / row["train_tokens_per_s"], "memory": 1e-6 * (row["peak_memory_bytes"] or 0),
        }
        for row in good
        if row["architecture"] in several
    ]  # fmt: skip
    if not points:
        return None
    names = sorted(several)
    measures = {key: title for key, title in MEASURES.items() if all(point[key] for point in points)}
    chart, field, title = choice(alt.Chart(table(points)), measures, frame)
    ticks = alt.Axis(values=sorted({point["length"] for point in points}), format="d", grid=False)
    x = alt.X("length:Q", title="length, tokens", scale=alt.Scale(type="log", nice=False, padding=8), axis=ticks)
    y = alt.Y(field, title=title, scale=alt.Scale(type="log"), axis=alt.Axis(format=",~g", tickCount=5))
    about = [
        *tip(architecture="architecture", length="length", slope="exponent of time in length"),
        *(alt.Tooltip(f"{key}:Q", title=title, format=",.3~g") for key, title in measures.items()),
    ]
    own: dict[str, Any] = {"x": x, "y": y, "color": frame.colour(names), "opacity": opacity(), "tooltip": about}
    slopes = ", ".join(f"{p['architecture']} {p['slope']}" for p in {p["architecture"]: p for p in points}.values())
    return frame.layers(
        chart.mark_line().encode(strokeDash=frame.dash(names), **own),
        chart.mark_point(size=40).encode(shape=frame.shape(names), fill=frame.colour(names), **own),
        height=frame.size[1],
        description=f"Time and memory of training against length; time grows with the power: {slopes}.",
    )


def _lengths_of(rows: Sequence[dict[str, Any]], name: str) -> set[int]:
    return {row["length"] for row in rows if row["architecture"] == name}
