"""Charts over the tracks of one task, and over several tasks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

from harness.board.looks import GREY, Frame, opacity, table, tip
from harness.board.model import Aggregate, Contrast, Standing, TimeToTarget
from harness.board.tables import ranks
from harness.board.task_charts import STEP
from harness.records.record import Record
from harness.stats import aggregate as stats


def track_ranks(contrast: Contrast, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """The ranks each architecture may hold in each track: a bar from first to last, lines between their middles."""
    names = [name for name, spans in contrast.places.items() if any(spans)]
    if not names:
        return None
    points = [
        {"architecture": name, "track": i, "middle": sum(span) / 2, "first": span[0] - 0.2, "last": span[1] + 0.2,
         "held": contrast.tracks[i], "ranks": ranks(span), "at": i + 0.6 * ((j + 0.5) / len(names) - 0.5)}
        for j, name in enumerate(names)
        for i, span in enumerate(contrast.places[name])
        if span is not None
    ]  # fmt: skip
    heads = alt.Chart(table({"track": name, "at": i} for i, name in enumerate(contrast.tracks)))
    last = len(contrast.tracks) - 0.5
    x = alt.X("at:Q", axis=None, scale=alt.Scale(domain=[-0.5, last], nice=False, zero=False))
    scale = alt.Scale(domain=[0.5, len(names) + 0.5], reverse=True, nice=False, zero=False)
    axis = alt.Axis(values=[*range(1, len(names) + 1)], format="d", labelOverlap=False)
    y, span = (alt.Y(field, title="rank", scale=scale, axis=axis) for field in ("middle:Q", "first:Q"))
    about = tip(architecture="architecture", held="held equal", ranks="may hold rank")
    own: dict[str, Any] = {"x": x, "color": frame.colour(names), "tooltip": about}
    chart = alt.Chart(table(points))
    order = f"{names[0]} is first and {names[-1]} last on average"
    return frame.layers(
        heads.mark_text(baseline="bottom", dy=-6, fontWeight="bold").encode(x=x, y=alt.YValue(0), text="track:N"),
        chart.mark_rule(strokeWidth=3, strokeCap="round")
        .encode(y=span, y2="last:Q", opacity=opacity(0.5), **own),
        chart.mark_line(strokeWidth=1.2).encode(y=y, strokeDash=frame.dash(names), opacity=opacity(), **own),
        chart.mark_point(size=45)
        .encode(y=y, shape=frame.shape(names), fill=frame.colour(names), opacity=opacity(), **own),
        height=max(160, STEP * len(names)),
        description=f"Ranks on {contrast.task} in {', '.join(contrast.tracks)}: {order}.",
    )  # fmt: skip


def profile(found: Aggregate, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """The fraction of runs at or above each normalised score (Agarwal et al. 2021)."""
    if not found.scales:
        return None
    runs = {row.architecture: [*row.normalised.values()] for row in found.rows}
    best = max((score for own in runs.values() for task in own for score in task), default=1.0)
    limit = min(max(1.05, 1.02 * best), 2.0)
    series = {}
    for name, own in runs.items():
        taus = _within((score for task in own for score in task), limit)
        series[name] = [*zip(taus, stats.profile(own, taus), strict=True)]
    first = found.rows[0]
    said = f"{first.architecture} has the highest interquartile mean" + (
        "" if first.iqm is None else f", {first.iqm:.3f}"
    )
    titles = ("normalised score τ", "fraction of runs at τ or above")
    return _steps(
        series, "step-before", limit, titles, f"Performance profile over {len(found.tasks)} tasks: {said}.", frame
    )


def times(found: TimeToTarget, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """The fraction of tasks on which the target is reached within τ times the reference's time (Dahl et al. 2023)."""
    series = {}
    for row in found.rows:
        ratios = [math.inf if ratio is None else ratio for ratio in row.ratios.values()]
        taus = _within(ratios, stats.TAU)
        series[row.architecture] = [*zip(taus, stats.time_profile(ratios, taus), strict=True)]
    if not series:
        return None
    first, count = found.rows[0], len(found.targets)
    said = f"{first.architecture} is first with a score of {first.score:.3f}, on {first.reached} of {count} tasks"
    titles = ("τ, times the reference's time", "fraction of tasks reached")
    return _steps(series, "step-after", stats.TAU, titles, f"Time to target: {said}.", frame)


def _within(values: Iterable[float], limit: float) -> list[float]:
    """Where a step function of these values changes, from 0 to the limit."""
    return sorted({0.0, limit, *(value for value in values if 0 < value < limit)})


def _steps(
    series: Mapping[str, Sequence[tuple[float, float]]],
    kind: str,
    limit: float,
    titles: tuple[str, str],
    said: str,
    frame: Frame,
) -> alt.LayerChart:
    """Step functions of τ. Lines that coincide are drawn side by side, so that all are seen."""
    names, middle = [*series], (len(series) - 1) / 2
    apart = min(0.004, 0.05 / max(1.0, middle))
    points = [
        {"architecture": name, "tau": float(tau), "share": float(share), "drawn": float(share) + apart * (middle - i)}
        for i, (name, steps) in enumerate(series.items())
        for tau, share in steps
    ]
    x = alt.X("tau:Q", title=titles[0], scale=alt.Scale(domain=[0, limit], nice=False))
    y = alt.Y(
        "drawn:Q",
        title=titles[1],
        scale=alt.Scale(domain=[-0.06, 1.06], nice=False),
        axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".0%"),
    )
    about = [
        *tip(architecture="architecture"),
        alt.Tooltip("tau:Q", title="τ", format=".3~g"),
        alt.Tooltip("share:Q", title=titles[1], format=".0%"),
    ]
    one = alt.Chart(table([{"tau": 1.0}])).mark_rule(color=GREY, strokeDash=[3, 2])
    line = alt.Chart(table(points)).mark_line(interpolate=kind)
    return frame.layers(
        one.encode(x=x, tooltip=alt.TooltipValue("the reference's own")),
        line.encode(
            x=x, y=y, color=frame.colour(names), strokeDash=frame.dash(names), opacity=opacity(), tooltip=about
        ),
        height=frame.size[1],
        description=said,
    )


def critical_difference(found: Aggregate, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """Mean ranks on one line, the best on the left; a bar joins those that are not separated (Demšar 2006)."""
    if found.ranking is None:
        return None
    rows = sorted(found.rows, key=lambda row: (row.rank, row.architecture))
    at, k, bars = {row.architecture: row.rank for row in rows}, len(rows), found.ranking.groups
    top = 0.6 + 0.5 * len(bars)
    leaders = table(_leader(i, row, k, top) for i, row in enumerate(rows))
    joined = table(
        {
            "first": at[bar[0]] - 0.012 * k,
            "last": at[bar[-1]] + 0.012 * k,
            "depth": 0.5 + 0.5 * i,
            "group": ", ".join(bar),
        }
        for i, bar in enumerate(bars)
    )
    difference = found.ranking.difference
    depth = top + -(-k // 2) + 0.6
    x = alt.X(
        "rank:Q", scale=alt.Scale(domain=[1 - 0.45 * (k - 1), k + 0.45 * (k - 1)], nice=False, zero=False), axis=None
    )
    y = alt.Y("depth:Q", scale=alt.Scale(domain=[-2.6, depth], reverse=True, nice=False, zero=False), axis=None)
    about = tip(architecture="architecture", said="mean rank")
    own: dict[str, Any] = {"opacity": opacity(), "tooltip": about}
    chart = alt.Chart(leaders)
    names = [
        chart.transform_filter(f"datum.left == {left}").mark_text(align=align, dx=dx, baseline="middle", limit=150)
        .encode(x=alt.X("edge:Q", axis=None), y=y, text="label:N", **own)
        for left, align, dx in (("true", "right", -3), ("false", "left", 3))
    ]  # fmt: skip
    bar = alt.Chart(joined).mark_rule(strokeWidth=4, color=GREY)
    return frame.layers(
        *_ruler(k, difference, x, y),
        chart.mark_rule(color=GREY).encode(x=x, y=alt.Y("start:Q", axis=None), y2="depth:Q", **own),
        chart.mark_rule(color=GREY).encode(x=x, x2="edge:Q", y=y, **own),
        bar.encode(x=alt.X("first:Q", axis=None), x2="last:Q", y=y, tooltip=tip(group="not separated")),
        *names,
        height=round(STEP * (depth + 2.6)),
        description=f"Mean ranks over {len(found.tasks)} tasks: {rows[0].architecture} is first with "
        f"{rows[0].rank:.2f}; the critical difference is {difference:.2f}.",
    )


def _leader(i: int, row: Standing, k: int, top: float) -> dict[str, Any]:
    """The line from a mean rank to its name, which stands left for the better half."""
    left = i < -(-k // 2)
    label = f"{row.architecture}  {row.rank:.2f}" if left else f"{row.rank:.2f}  {row.architecture}"
    return {
        "architecture": row.architecture, "rank": row.rank, "said": f"{row.rank:.2f}", "label": label, "left": left,
        "start": 0.0, "depth": top + 0.5 + (i if left else k - 1 - i),
        "edge": 1 - 0.06 * (k - 1) if left else k + 0.06 * (k - 1),
    }  # fmt: skip


def _ruler(k: int, difference: float, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """The line of ranks, and above it the length of the critical difference."""
    step = -(-k // 12)
    ticks = [{"rank": rank, "depth": 0.0, "end": -0.2} for rank in range(1, k + 1)]
    shown = [{**tick, "label": str(tick["rank"])} for tick in ticks if tick["rank"] == 1 or tick["rank"] % step == 0]
    spans: list[dict[str, Any]] = [
        {"rank": 1.0, "end": float(k), "depth": 0.0},
        {"rank": 1.0, "end": 1 + difference, "depth": -1.7, "label": f"critical difference {difference:.2f}"},
    ]
    lines, words = alt.Chart(table(spans)).mark_rule(color=GREY), alt.Chart(table(spans[1:]))
    return [
        lines.encode(x=x, x2="end:Q", y=y, size=alt.SizeValue(1.5)),
        alt.Chart(table(ticks)).mark_rule(color=GREY).encode(x=x, y=y, y2="end:Q"),
        alt.Chart(table(shown)).mark_text(baseline="bottom", dy=-5).encode(x=x, y=y, text="label:N"),
        words.mark_text(align="left", baseline="bottom", dy=-3).encode(x=x, y=y, text="label:N"),
    ]
