"""Normalised scores, mean ranks and probabilities of improvement of the architectures that run on all tasks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import combinations

from harness.board.comparable import grouped
from harness.board.model import Aggregate, Improvement, RankTest, Scale, Standing, TaskBoard
from harness.board.rows import Row
from harness.stats import LEVEL
from harness.stats import aggregate as stats


def on_all_tasks(tasks: Sequence[TaskBoard]) -> list[str]:
    """Every architecture that the suite runs on all of the tasks, ranked or not."""
    found = {row.architecture for task in tasks for row in task.rows}
    return sorted(name for name in found if all(not task.only or name in task.only for task in tasks))


def reference_row(task: TaskBoard, named: str, names: Sequence[str]) -> Row | None:
    """The row that others are measured by: the named one if it is ranked here; the best of `names` without one."""
    ranked = [row for row in task.ranked if row.architecture in names]
    return next((row for row in ranked if not named or row.architecture == named), None)


def with_standings(aggregate: Aggregate, tasks: Sequence[TaskBoard]) -> Aggregate:
    """The aggregate with everything that is made from the scores."""
    names = on_all_tasks(tasks)
    scales = [scale for task in tasks if (scale := _scale(task, aggregate.reference, names)) is not None]
    ranks = stats.ranks([[_score(task, name) for name in names] for task in tasks]).mean(axis=0)
    rows = [_standing(name, float(rank), tasks, scales) for name, rank in zip(names, ranks, strict=True)]
    rows.sort(key=lambda row: (-(row.iqm or 0.0), row.rank, row.architecture))
    return dataclasses.replace(
        aggregate,
        rows=rows,
        scales=scales,
        improvements=_improvements(tasks, [row.architecture for row in rows]),
        ranking=_rank_test(tasks, rows) if len(rows) > 1 else None,
    )


def _scale(task: TaskBoard, named: str, names: Sequence[str]) -> Scale | None:
    """None where the reference has no score, or beats no baseline."""
    one = reference_row(task, named, names)
    if one is None or one.mean is None:
        return None
    worst = stats.pessimistic([task.cost(score) for score in one.scores])
    zero = next((line for line in task.lines if worst < task.cost(line.value)), None)
    if zero is None:
        return None
    return Scale(task.task, task.metric, zero.value, zero.name, one.mean, one.architecture)


def _score(task: TaskBoard, name: str) -> float:
    """Larger is better; −∞ for no score."""
    row = task.ranked_row(name)
    return -math.inf if row is None or row.mean is None else -task.cost(row.mean)


def _standing(name: str, rank: float, tasks: Sequence[TaskBoard], scales: Sequence[Scale]) -> Standing:
    rows = {task.task: task.ranked_row(name) for task in tasks}
    runs = {s.task: stats.normalised(row.scores, s.zero, s.one) if (row := rows[s.task]) else [] for s in scales}
    low, high = (runs and stats.iqm_interval(list(runs.values()))) or (None, None)
    return Standing(
        architecture=name,
        scored=sum(row is not None for row in rows.values()),
        missing={task.task: _absence(task, name) for task in tasks if rows[task.task] is None},
        iqm=stats.iqm(list(runs.values())) if runs else None,
        low=low,
        high=high,
        mean=stats.mean(list(runs.values())) if runs else None,
        rank=rank,
        normalised=runs,
    )


def _absence(task: TaskBoard, name: str) -> str:
    row = next((row for row in task.rows if row.architecture == name), None)
    return "not run" if row is None else "not ranked" if row.status == "ok" else row.status


def _improvements(tasks: Sequence[TaskBoard], names: Sequence[str]) -> list[Improvement]:
    def runs(name: str) -> list[list[float]]:
        rows = [(task, task.ranked_row(name)) for task in tasks]
        return [[-task.cost(score) for score in row.scores] if row else [] for task, row in rows]

    found, scores = {}, {name: runs(name) for name in names}
    for a, b in combinations(names, 2):
        p, interval = stats.improvement(scores[a], scores[b]), stats.improvement_interval(scores[a], scores[b])
        low, high = interval or (None, None)
        found[a, b] = Improvement(a, b, p, low, high)
        found[b, a] = Improvement(b, a, 1 - p, None if high is None else 1 - high, None if low is None else 1 - low)
    return [found[a, b] for a in names for b in names if a != b]


def _rank_test(tasks: Sequence[TaskBoard], rows: Sequence[Standing]) -> RankTest:
    """Nobody is separated unless Friedman's test finds that somebody differs."""
    ordered = sorted(rows, key=lambda row: (row.rank, row.architecture))
    names = [row.architecture for row in ordered]
    tested = stats.friedman(stats.ranks([[_score(task, name) for name in names] for task in tasks]))
    difference = stats.critical_difference(len(names), len(tasks))
    differ = len(names) == 2 or (tested is not None and tested[1] < LEVEL)
    bars = stats.groups([row.rank for row in ordered], difference if differ else math.inf)
    return RankTest(
        statistic=tested[0] if tested else None,
        p=tested[1] if tested else None,
        difference=difference,
        tasks_to_tell=stats.tasks_to_tell(len(names)),
        groups=[names[first : last + 1] for first, last in bars],
    )


def notes(aggregate: Aggregate, tasks: Sequence[TaskBoard], empty: Sequence[str]) -> list[str]:
    """Notes beside the aggregates, the most important first."""
    found = [f"{len(tasks)} tasks, each with the same weight: {', '.join(aggregate.tasks)}"]
    if empty:
        found.append(f"left out, since nothing is ranked there: {', '.join(empty)}")
    if some := {row.architecture for task in tasks for row in task.rows} - {*on_all_tasks(tasks)}:
        found.append(f"left out, since the suite runs them on some of the tasks only: {', '.join(sorted(some))}")
    return [
        *found,
        *_missing(aggregate),
        *_scales(aggregate, tasks),
        *(_tested(aggregate, aggregate.ranking) if aggregate.ranking else []),
        *_seeds(tasks),
    ]


def _missing(aggregate: Aggregate) -> list[str]:
    """Every result that is missing, by reason, and as what it counts."""
    ordered = sorted(aggregate.rows, key=lambda row: row.architecture)
    missing = {row.architecture: grouped((why, task) for task, why in row.missing.items()) for row in ordered}
    by_reason = grouped(
        (why, f"{name} on {', '.join(tasks)}") for name, own in missing.items() for why, tasks in own.items()
    )
    rows, tasks = len(aggregate.rows), len(aggregate.tasks)
    count = sum(len(row.missing) for row in aggregate.rows)
    if not count:
        return [f"no result is missing: {rows} architectures on {tasks} tasks"]
    listed = "; ".join(f"{reason}: {', '.join(items)}" for reason, items in sorted(by_reason.items()))
    counted = "each counts as normalised score 0, as worse than any run, as a share of the last places and as time ∞"
    trimmed = "IQM sets the worst quarter of runs aside, these among them; mean and mean rank do not"
    return [f"{count} of {rows * tasks} results are missing; {counted}; {listed}", trimmed]


def _scales(aggregate: Aggregate, tasks: Sequence[TaskBoard]) -> list[str]:
    found, scales = [], aggregate.scales
    if scales:
        ends = "; ".join(f"{s.task} {s.zero_name} {s.zero:.3f} → {s.one_name} {s.one:.3f}" for s in scales)
        zero = "0 is the best baseline that the reference surely beats, and the least there is"
        found.append(f"normalised scores: {zero}; 1 is the reference's mean: {ends}")
    if not aggregate.reference:
        best = "the best row of each task is the reference"
        found.append(f"the suite names no reference, so {best}, and a new best row moves every score measured by it")
    if left := [task for task in aggregate.tasks if task not in {s.task for s in scales}]:
        why = "the reference is not ranked there or surely beats no baseline"
        found.append(f"not in the normalised scores, since {why}: {', '.join(left)}")
    noise = {task.task: task.mdd or 0.0 for task in tasks}
    if narrow := [s.task for s in scales if abs(s.one - s.zero) < noise[s.task]]:
        why = "0 and 1 are nearer to each other than the smallest difference the task's table could show"
        found.append(f"mostly noise on {', '.join(narrow)}: {why}")
    return found


def _tested(aggregate: Aggregate, ranking: RankTest) -> list[str]:
    n, found = len(aggregate.tasks), []
    if ranking.p is not None:
        verdict = "the mean ranks differ" if ranking.p < LEVEL else "no difference of mean ranks is shown"
        found.append(f"Friedman's χ² = {ranking.statistic:.2f}, p = {ranking.p:.2g}: {verdict}")
    limits = f"critical difference of mean ranks (Nemenyi, 95%): {ranking.difference:.2f} at {n} tasks"
    if n < ranking.tasks_to_tell:
        count = len(aggregate.rows)
        limits += f"; ranks on fewer than {ranking.tasks_to_tell} tasks cannot separate {count} architectures"
    return [*found, limits]


def _seeds(tasks: Sequence[TaskBoard]) -> list[str]:
    counts = sorted({len(row.seeds) for task in tasks for row in task.ranked})
    if counts == [1]:
        return ["one seed for each result: no intervals"]
    found = ["intervals: 95%, from seeds resampled within each task; they hold for other seeds, not for other tasks"]
    if counts[0] < 5:
        found.append(f"with {counts[0]} seed{'s' * (counts[0] > 1)} such intervals are too narrow")
    if len(counts) > 1:
        found.append(f"seeds differ between results: {counts[0]} to {counts[-1]}")
    return found
