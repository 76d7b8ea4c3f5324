"""How fast the architectures reach a validation score, read from the curves in their records."""

import math
from collections.abc import Mapping, Sequence

from harness.board.model import Target, TargetTimes, TaskBoard, TimeToTarget
from harness.records.curves import Curve
from harness.records.meters import Meter
from harness.records.record import Record
from harness.stats import aggregate as stats
from harness.table.comparable import by_architecture, grouped, machines
from harness.table.rows import Row, finite

Runs = dict[str, list[Record]]
"""The runs of one task by architecture."""


def on_all_tasks(tasks: Sequence[TaskBoard]) -> list[str]:
    """Every architecture that the suite runs on all of the tasks, ranked or not."""
    found = {row.architecture for task in tasks for row in task.rows}
    return sorted(name for name in found if all(not task.only or name in task.only for task in tasks))


def reference_row(task: TaskBoard, named: str, names: Sequence[str]) -> Row | None:
    """The row that others are measured by: the named one if it is ranked here; the best of `names` without one."""
    ranked = [row for row in task.ranked if row.architecture in names]
    return next((row for row in ranked if not named or row.architecture == named), None)


def time_to_target(
    tasks: Sequence[TaskBoard], finals: Sequence[Record], named: str, targets: Mapping[str, float]
) -> TimeToTarget | None:
    """None where no task has both a target and a row whose time is the unit."""
    by_task = grouped((record.spec.task_label, record) for record in finals)
    names, runs = on_all_tasks(tasks), {task.task: _ranked_runs(task, by_task.get(task.task, [])) for task in tasks}
    goals = [_target(task, reference_row(task, named, names), runs[task.task], targets) for task in tasks]
    timed = [(task, goal) for task, goal in zip(tasks, goals, strict=True) if goal is not None]
    if not timed:
        return None
    meter, unit, about = _meter([r for task, _ in timed for own in runs[task.task].values() for r in own])
    times = {
        name: [_time(runs[task.task].get(name, []), task, goal.value, meter) for task, goal in timed] for name in names
    }
    found = [goal for _, goal in timed]
    units = [times[goal.reference][i] for i, goal in enumerate(found)]
    to_best = stats.ratios_to_best(times)
    rows = [_row(name, found, times[name], units, to_best[name]) for name in names]
    rows.sort(key=lambda row: (-row.score, -row.score_to_best, -row.reached, row.architecture))
    left = [task.task for task, goal in zip(tasks, goals, strict=True) if goal is None]
    return TimeToTarget(about, unit, found, rows, _notes(about, found, rows, named, left))


def _ranked_runs(task: TaskBoard, finals: Sequence[Record]) -> Runs:
    return {name: runs for name, runs in by_architecture(finals).items() if task.ranked_row(name)}


def _target(task: TaskBoard, unit: Row | None, runs: Runs, targets: Mapping[str, float]) -> Target | None:
    if unit is None:
        return None
    name = unit.architecture
    if task.task in targets:
        return Target(task.task, task.metric, float(targets[task.task]), "suite", name)
    ends = [end for r in runs[name] if (end := finite(r.metrics.valid.get(task.metric))) is not None]
    if not ends:
        return None
    value = stats.middle_final(ends, higher_is_better=task.higher_is_better)
    return Target(task.task, task.metric, value, name, name)


def _meter(runs: Sequence[Record]) -> tuple[Meter, str, str]:
    """The fairest meter that all runs allow, its unit, and what it says."""
    if all((r.speed.relative or 0.0) > 0 for r in runs):
        return "tokens", "tokens", "time, in tokens that the speed reference would have read meanwhile"
    if len(machines(runs)) == 1:
        return "seconds", "s", "seconds of training"
    return "flops", "FLOP", "FLOPs of training, since hardware differs"


def _time(runs: Sequence[Record], task: TaskBoard, target: float, meter: Meter) -> float:
    """When the median run is first seen at the target."""
    seen = [_reached(run, task.metric, meter, target, higher_is_better=task.higher_is_better) for run in runs]
    return stats.median_time(seen)


def _reached(run: Record, metric: str, meter: Meter, target: float, *, higher_is_better: bool) -> float:
    """When a run is first seen at the target, wherever it was scored, its end included.

    Tokens are divided by the run's speed relative to the reference timed in turn with it.
    """
    points, before = [(run.budget.used.of(meter), run.metrics.valid.get(metric))], math.inf
    if isinstance(run.curve, Curve):
        before = run.curve.reached(metric, meter, target, higher_is_better=higher_is_better)
    else:
        points += [(getattr(point, meter), (point.valid or {}).get(metric)) for point in run.curve]
    known = [(at, score) for at, score in points if score is not None and math.isfinite(score)]
    speed = (run.speed.relative if meter == "tokens" else None) or 1.0
    return min(before, stats.time_to_target(known, target, higher_is_better=higher_is_better)) / speed


def _row(
    name: str, targets: Sequence[Target], times: Sequence[float], units: Sequence[float], to_best: Sequence[float]
) -> TargetTimes:
    ratios = [stats.time_ratio(time, unit) for time, unit in zip(times, units, strict=True)]

    def by_task(values: Sequence[float]) -> dict[str, float | None]:
        return {target.task: finite(value) for target, value in zip(targets, values, strict=True)}

    score, reached = stats.time_score(ratios), sum(map(math.isfinite, times))
    return TargetTimes(name, score, stats.time_score(to_best), reached, *map(by_task, (times, ratios, to_best)))


def _notes(
    about: str, targets: Sequence[Target], rows: Sequence[TargetTimes], named: str, left: Sequence[str]
) -> list[str]:
    sources = ["set by the suite" if t.source == "suite" else f"where {t.source}'s median run ends" for t in targets]
    values = "; ".join(f"{t.task} {t.metric} {t.value:.3f} ({s})" for t, s in zip(targets, sources, strict=True))
    units = ", ".join(sorted({t.reference for t in targets}))
    found = [
        f"targets, on valid: {values}",
        f"{about}, at the first scoring that is at the target or past it; median over seeds, where a run that "
        "never gets there, or a row that is not ranked, is ∞",
        f"score: area under the profile to τ = {stats.TAU:g}, over {stats.TAU - 1:g}; 1 is the reference's own time, "
        f"0 is {stats.TAU:g} times it or more; each task weighs the same",
        f"reference: {units}{'' if named else '; the suite names none, so it is the best row of each task'}",
    ]
    times = {row.architecture: row.times for row in rows}
    if slow := [t.task for t in targets if times[t.reference][t.task] is None]:
        why = "the reference itself does not reach the target, so whoever does counts as time 0"
        found.append(f"{why}: {', '.join(slow)}")
    if left:
        found.append(f"left out, since the reference is not ranked there or has no score on valid: {', '.join(left)}")
    return found
