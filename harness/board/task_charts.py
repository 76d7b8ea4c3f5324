"""Charts of one task: its scores, how they were learned, and how the rows were tuned."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np

from harness.board import tuning
from harness.board.looks import GREY, Frame, choice, interval, opacity, table, tip
from harness.board.model import TaskBoard
from harness.board.tables import ranks
from harness.plan.trials import objective
from harness.records.record import CurvePoint, Record
from harness.table.comparable import by_architecture, machines
from harness.table.rows import Row, finite

STEP = 18
"""Pixels of one row."""
POINTS, MOST = 100, 2000
"""Points of one curve, and of all curves of a chart."""
Line = list[dict[str, float]]


def dots(board: TaskBoard, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """Mean, 95% interval and seeds of every ranked architecture, best on top, and the baselines that lie near."""
    rows = [row for row in board.ranked if row.mean is not None]
    if not rows:
        return None
    names, best = [row.architecture for row in rows], rows[0]
    frame = replace(frame, legend=False)  # its axis names them
    means = table(interval(row) | {"ranks": ranks(row.ranks), "seeds": len(row.seeds)} for row in rows)
    seeds = table(
        {"architecture": row.architecture, "score": score, "seed": str(seed), "said": f"{score:.4g}"}
        for row in rows
        for seed, score in row.by_seed.items()
    )
    x = alt.X(
        "score:Q",
        title=board.direction,
        scale=alt.Scale(zero=False, nice=False, padding=12),
        axis=alt.Axis(tickCount=6),
    )
    y = alt.Y("architecture:N", sort=names, title=None, axis=alt.Axis(ticks=False, domain=False, grid=True))
    own = {"y": y, "color": frame.colour(names)}
    about = tip(architecture="architecture", said=board.metric, ranks="may hold rank", seeds="seeds")
    one = tip(architecture="architecture", seed="seed", said=board.metric)
    bars, ticks, marks = (
        alt.Chart(means).mark_rule(),
        alt.Chart(seeds).mark_tick(height=10),
        alt.Chart(means).mark_point(),
    )
    shaped = {"shape": frame.shape(names), "fill": frame.colour(names)}
    return frame.layers(
        *_baselines(board, rows),
        bars.encode(x=alt.X("low:Q"), x2="high:Q", size=alt.SizeValue(2), opacity=opacity(), tooltip=about, **own),
        ticks.encode(x=x, opacity=opacity(0.6), tooltip=one, **own),
        marks.encode(x=x, opacity=opacity(), tooltip=about, **shaped, **own),
        height=alt.Step(STEP),
        description=f"{board.title}, {board.direction}: {best.architecture} is first of {len(rows)} with "
        f"{interval(best)['said']}.",
    )


def _baselines(board: TaskBoard, rows: Sequence[Row]) -> list[alt.Chart]:
    """Only those near the scores: a far one would squeeze the rest into a corner. Names that would meet are stacked."""
    ends = [v for row in rows for v in (*row.scores, row.low, row.high) if v is not None]
    span = max(max(ends) - min(ends), 1e-9)
    near = [line for line in board.lines if min(ends) - 0.8 * span <= line.value <= max(ends) + 0.8 * span]
    if not near:
        return []
    ends += [line.value for line in near]
    near.sort(key=lambda line: line.value)
    lines = [{"baseline": line.name, "score": line.value, "said": f"{line.value:.4g}"} for line in near]
    levels = _levels([(line.value, len(line.name)) for line in near], max(ends) - min(ends))
    rules = alt.Chart(table(lines)).mark_rule(color=GREY, strokeDash=[3, 2])
    names = [
        alt.Chart(table(line for line, own in zip(lines, levels, strict=True) if own == level))
        .mark_text(baseline="bottom", limit=160)
        .encode(x="score:Q", y=alt.YValue(-4 - 12 * level), text="baseline:N")
        for level in sorted({*levels})
    ]
    return [rules.encode(x="score:Q", tooltip=tip(baseline="baseline", said=board.metric)), *names]


def _levels(names: Iterable[tuple[float, int]], span: float) -> list[int]:
    """For names (where, letters) from left to right, a level on which each meets no other."""
    ends: list[float] = []
    found = []
    for at, letters in names:
        half = (3.2 * letters + 4) * span / 280  # a letter of 6.4 pixels, on an axis of 280 pixels or more
        level = next((i for i, end in enumerate(ends) if at - half > end), len(ends))
        ends[level : level + 1] = [at + half]
        found.append(level)
    return found


METERS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}


def curves(board: TaskBoard, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """Validation score (training loss where there is none) over training: mean and range of the seeds."""
    finals = [r for r in records if r.spec.kind == "final"]
    own = by_architecture(finals)
    runs = {row.architecture: own.get(row.architecture, []) for row in board.ranked}
    metric = finals[0].metrics.primary if finals else board.metric
    most = max(2, min(POINTS, MOST // max(1, len(runs))))
    title, series = f"{metric} on valid", averages(runs, lambda point: (point.valid or {}).get(metric), most)
    if len(series) < len(runs):
        title, series = "training loss, nats", averages(runs, lambda point: point.loss, most)
    if not series:
        return None
    meters = {key: title for key, title in METERS.items() if key != "seconds" or len(machines(finals)) == 1}
    meters = {key: title for key, title in meters.items() if all(line[-1][key] > 0 for line in series.values())}
    points = [
        {"architecture": name, **{k: v for k, v in point.items() if k in meters or k not in METERS}}
        for name, line in series.items()
        for point in line
    ]
    # the last nine tenths of training in full; the first fall may leave the frame
    late = [p for line in series.values() for p in line if p["tokens"] >= line[-1]["tokens"] / 10]
    low, high = min(p["low"] for p in late), max(p["high"] for p in late)
    margin = 0.05 * max(high - low, 1e-9)
    y = alt.Y("score:Q", title=title, scale=alt.Scale(domain=[low - margin, high + margin], nice=False, zero=False))
    chart, field, meter = choice(alt.Chart(table(points)), meters, frame)
    x = alt.X(field, title=meter, axis=alt.Axis(format="~s", tickCount=5))
    names = [*series]
    band, line, spots = chart.mark_area(clip=True), chart.mark_line(clip=True), chart.mark_point(clip=True, size=40)
    about = [
        *tip(architecture="architecture"),
        *(alt.Tooltip(f"{key}:Q", title=title, format=".3~s") for key, title in meters.items()),
        *(alt.Tooltip(f"{key}:Q", title=said, format=".4~g") for key, said in
          {"score": f"mean {title}", "low": "least of the seeds", "high": "most of the seeds"}.items()),
    ]  # fmt: skip
    colour = frame.colour(names, symbolType="stroke")
    few = 0.15 if len(names) <= 8 else 0.0  # bands of many rows would cover each other
    return frame.layers(
        line.encode(x=x, y=y, color=colour, strokeDash=frame.dash(names), opacity=opacity(), tooltip=about),
        band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour, opacity=opacity(0.25, unless=few), tooltip=about),
        spots.encode(x=x, y=y, detail="architecture:N", opacity=alt.OpacityValue(0), tooltip=about),
        height=frame.size[1],
        description=_ends(board, title, series),
    )


def _ends(board: TaskBoard, title: str, series: Mapping[str, Line]) -> str:
    ends = {name: line[-1]["score"] for name, line in series.items()}
    order = sorted(ends, key=lambda name: board.cost(ends[name]) if "valid" in title else ends[name])
    return (
        f"{board.title}: {title} over training; at the end {order[0]} is first with {ends[order[0]]:.4g} and "
        f"{order[-1]} last with {ends[order[-1]]:.4g}."
    )


Read = Callable[[CurvePoint], "float | None"]


def averages(runs: Mapping[str, Sequence[Record]], read: Read, most: int = POINTS) -> dict[str, Line]:
    """The `average` of each architecture's runs that have one."""
    return {name: line for name, own in runs.items() if (line := average(own, read, most))}


def average(runs: Sequence[Record], read: Read, most: int = POINTS) -> Line:
    """Mean, least and most over the seeds, with their mean tokens, FLOPs and seconds.

    On the first seed's grid of tokens where all seeds have been; empty with fewer than two such points.
    """
    series = []
    for run in runs:
        points = [(p.tokens, value, p.flops, p.seconds) for p in run.curve if (value := finite(read(p))) is not None]
        if len(points) > 1:
            series.append(np.array(sorted(points), dtype=np.float64).T)
    if not series:
        return []
    grid = series[0][0]
    grid = grid[(grid >= max(s[0][0] for s in series)) & (grid <= min(s[0][-1] for s in series))]
    if len(grid) < 2:
        return []
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, min(len(grid), most)).astype(int))]
    scores, flops, seconds = (np.array([np.interp(grid, s[0], s[i]) for s in series]) for i in (1, 2, 3))
    columns = (grid, flops.mean(0), seconds.mean(0), scores.mean(0), scores.min(0), scores.max(0))
    keys = ("tokens", "flops", "seconds", "score", "low", "high")
    return [dict(zip(keys, map(float, point), strict=True)) for point in zip(*columns, strict=True)]


def learning_rates(board: TaskBoard, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """Score on the tuning split against the learning rate; what was chosen is filled. None without trials."""
    trials, higher = by_architecture(r for r in records if r.spec.kind == "trial"), board.higher_is_better
    points: list[dict[str, Any]] = []
    for row in board.ranked:
        found: dict[float, float] = {}
        for trial in trials.get(row.architecture, []):
            rate, score = finite(trial.spec.tuned("lr")), finite(board.cost(objective(trial)))
            if rate and score is not None:
                found[rate] = (max if higher else min)(score, found.get(rate, score))
        points += [
            {"architecture": row.architecture, "lr": rate, "score": score, "chosen": rate == row.lr}
            for rate, score in sorted(found.items())
        ]
    if len({point["lr"] for point in points}) < 2:
        return None
    rows = [p | {"said": f"{p['score']:.4g}", "rate": f"{p['lr']:g}"} for p in points]
    names = list(dict.fromkeys(p["architecture"] for p in points))
    x = alt.X("lr:Q", title="learning rate", scale=alt.Scale(type="log", nice=False, padding=12),
              axis=alt.Axis(values=sorted({p["lr"] for p in points})[:12], format="~g"))  # fmt: skip
    y = alt.Y("score:Q", title=f"{board.metric} of trials", scale=alt.Scale(zero=False))
    about = tip(architecture="architecture", rate="learning rate", said=f"best {board.metric} of its trials there")
    own = {"x": x, "y": y, "color": frame.colour(names), "opacity": opacity(), "tooltip": about}
    chart = alt.Chart(table(rows))
    chosen = chart.transform_filter("datum.chosen").mark_point(size=80)
    taken = "; ".join(f"{p['architecture']} {p['lr']:g}" for p in points if p["chosen"])
    return frame.layers(
        chart.mark_line().encode(strokeDash=frame.dash(names), **own),
        chart.mark_point(size=20).encode(shape=frame.shape(names), **own),
        chosen.encode(shape=frame.shape(names), fill=frame.colour(names), **own),
        height=frame.size[1],
        description=f"{board.title}: {board.metric} against learning rate; chosen were {taken or 'none'}.",
    )


def best_of(board: TaskBoard, records: Sequence[Record], frame: Frame) -> alt.LayerChart | None:
    """The expected best score of k trials against k, for each architecture: what more tuning would bring."""
    series = tuning.best_of(board, [r for r in records if r.spec.kind == "trial"])
    if not series:
        return None
    names, most = [*series], max(map(len, series.values()))
    points = [
        {"architecture": name, "trials": k, "score": value, "said": f"{value:.4g}"}
        for name, values in series.items()
        for k, value in enumerate(values, 1)
    ]
    x = alt.X("trials:Q", title="trials", axis=alt.Axis(values=[*range(1, most + 1, -(-most // 10))], format="d"))
    y = alt.Y("score:Q", title=f"expected best {board.metric}", scale=alt.Scale(zero=False))
    about = tip(architecture="architecture", trials="trials", said=f"expected best {board.metric}")
    own: dict[str, Any] = {"x": x, "y": y, "color": frame.colour(names), "opacity": opacity(), "tooltip": about}
    chart = alt.Chart(table(points))
    ends = {name: values[-1] for name, values in series.items()}
    best = min(ends, key=lambda name: board.cost(ends[name]))
    return frame.layers(
        chart.mark_line().encode(strokeDash=frame.dash(names), **own),
        chart.mark_point(size=25).encode(shape=frame.shape(names), fill=frame.colour(names), **own),
        height=frame.size[1],
        description=f"{board.title}: the expected best of k trials; of all {len(series[best])}, "
        f"{best} is first with {ends[best]:.4g}.",
    )
