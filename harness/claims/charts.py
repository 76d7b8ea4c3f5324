"""A claim as a picture: the mean score of every row of its suite under every condition."""

from __future__ import annotations

from statistics import fmean

import altair as alt

from harness.board.looks import Frame, opacity, table, tip
from harness.claims.quantities import Column, Measured

CELL = 34
"""Pixels of one row."""


def heat_map(measured: Measured, frame: Frame) -> alt.LayerChart | None:
    """Rows × conditions, which are tasks, tracks and lengths; darker is better, and what diverged says so.

    None where there is nothing to compare: one row or one condition, or tasks of different units.
    """
    columns = _alike(measured)
    rows = [*dict.fromkeys(row for column in columns for row in measured.scores[column])]
    if len(rows) < 2 or len(columns) < 2:
        return None
    means = {
        (column, row): fmean(measured.scores[column][row])
        for column in columns
        for row in rows
        if row in measured.scores[column]
    }
    cells = [
        {"architecture": row, "condition": columns[column], "score": mean, **_words(measured, column, row, mean)}
        for (column, row), mean in means.items()
    ]
    first = next(iter(columns))
    x = alt.X(
        "condition:N",
        sort=[*columns.values()],
        title=_unit(first),
        axis=alt.Axis(orient="top", labelAngle=-30, ticks=False, domain=False),
    )
    y = alt.Y("architecture:N", sort=rows, title=None, axis=alt.Axis(ticks=False, domain=False))
    shade = alt.Scale(scheme="blues", reverse=not first.higher)
    colour = alt.Color("score:Q", scale=shade, legend=None)
    middle = (min(means.values()) + max(means.values())) / 2
    dark = f"datum.score {'>' if first.higher else '<'} {middle}"
    letters = alt.Color(value="#1d1f21", condition={"test": dark, "value": "#ffffff"})
    about = tip(architecture="row", condition="condition", said=first.metric, seeds="by seed")
    own = {"x": x, "y": y, "opacity": opacity(), "tooltip": about}
    chart = alt.Chart(table(cells))
    return frame.layers(
        chart.mark_rect(stroke=None).encode(color=colour, **own),
        chart.mark_text().encode(text="said:N", color=letters, **own),
        height=alt.Step(CELL),
        description=f"{first.metric} of {len(rows)} rows under {len(columns)} conditions: "
        + "; ".join(f"{cell['architecture']}, {cell['condition']}: {cell['said']}" for cell in cells),
    )


def _alike(measured: Measured) -> dict[Column, str]:
    """The columns that can share one scale, each with the name of its condition; none where tasks differ in metric."""
    units = {_unit(column) for column in measured.scores if column.primary}
    columns = [column for column in measured.scores if {_unit(column)} == units]
    order = {table: at for at, table in enumerate(measured.tables)}
    columns.sort(key=lambda column: (order.get((column.task, column.track), len(order)), column.metric))
    parts = [(column.task, column.track, column.metric) for column in columns]
    told = [len({*part}) > 1 for part in zip(*parts, strict=True)]
    return {
        column: " · ".join(part for part, differs in zip(own, told, strict=True) if differs)
        for column, own in zip(columns, parts, strict=True)
    }


def _unit(column: Column) -> str:
    """The metric without the length it is taken at (see `tasks.extrapolation`)."""
    return column.metric.partition("@")[0]


def _words(measured: Measured, column: Column, row: str, mean: float) -> dict[str, str]:
    """What a cell says, and its scores by seed."""
    scores, lost = measured.scores[column][row], measured.diverged[column.task, column.track, row]
    said = f"diverged {lost}/{len(scores)}" if lost else f"{mean:.3g}"
    return {"said": said, "seeds": ", ".join(f"{score:.4g}" for score in scores)}
