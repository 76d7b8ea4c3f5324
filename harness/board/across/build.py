"""From the tables of single tasks, and the curves in the records, to what is said over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from harness.board import gather, notes
from harness.board.across.model import Across, Improvement, Pace, Race, Ranking, Scale, Standing, Target
from harness.board.gather import Record, dig
from harness.board.model import Row, TaskBoard
from harness.stats import LEVEL
from harness.stats import across as stats


def make(
    tasks: Sequence[TaskBoard],
    finals: Sequence[Record],
    reference: str = "",
    targets: Mapping[str, float] | None = None,
) -> list[Across]:
    """What is said over the tasks of each track, in the order of the tracks.

    Args:
        tasks: tables already ranked. finals: the records they are made from, in canonical order.
        reference: the row everything is measured by; by default each task's best.
        targets: validation scores to reach, by task; by default where the reference's median run ends.
    """
    found = []
    for track in dict.fromkeys(task.track for task in tasks):
        own = [task for task in tasks if task.track == track]
        runs = [r for r in finals if gather.column_of(r)[1] == track]
        made = _track(track, own, runs, reference, targets or {})
        found += [made] if made is not None else []
    return found


def _track(
    track: str, boards: list[TaskBoard], finals: Sequence[Record], reference: str, targets: Mapping[str, float]
) -> Across | None:
    tasks = [board for board in boards if any(row.ranked for row in board.rows)]
    if not tasks:
        return None
    if len(tasks) > 1 and len(whole := _on_all(tasks)) < 2:
        note = f"nothing is said over {', '.join(t.task for t in tasks)}: {_few(whole)} a score on every task"
        return Across(track, [task.task for task in tasks], reference, [], [], [], None, None, [note])
    if len(tasks) == 1 and not (reference or targets):
        return None  # a race against the best row of one task says no more than its curves
    race = _race(tasks, finals, reference, targets)
    if len(tasks) == 1:
        return Across(track, [tasks[0].task], reference, [], [], [], None, race, _no_race(race))
    scales = [scale for task in tasks if (scale := _scale(task, reference, _names(tasks))) is not None]
    rows = _standings(tasks, scales)
    names = [row.architecture for row in rows]
    across = Across(
        track=track,
        tasks=[task.task for task in tasks],
        reference=reference,
        rows=rows,
        scales=scales,
        improvements=_improvements(tasks, names),
        ranking=_ranking(tasks, rows) if len(rows) > 1 else None,
        race=race,
        notes=[],
    )
    empty = [board.task for board in boards if board not in tasks]
    across.notes.extend(_notes(across, tasks, empty))
    return across


def _ranked(task: TaskBoard) -> dict[str, Row]:
    return {row.architecture: row for row in task.rows if row.ranked}


def _names(tasks: Sequence[TaskBoard]) -> list[str]:
    """Every architecture that plays all of the tasks, ranked or not."""
    found = {row.architecture for task in tasks for row in task.rows}
    return sorted(name for name in found if all(not task.only or name in task.only for task in tasks))


def _elsewhere(tasks: Sequence[TaskBoard]) -> list[str]:
    """Who plays some of the tasks, but not all, because the suite says so."""
    found = {row.architecture for task in tasks for row in task.rows} - {*_names(tasks)}
    return [f"not here, since the suite asks them some of the tasks only: {', '.join(sorted(found))}"] if found else []


def _on_all(tasks: Sequence[TaskBoard]) -> list[str]:
    return sorted(set.intersection({*_names(tasks)}, *({*_ranked(task)} for task in tasks)))


def _few(names: Sequence[str]) -> str:
    return f"only {names[0]} has" if names else "no architecture has"


def _reference(task: TaskBoard, named: str, names: Sequence[str]) -> Row | None:
    """The row that is 1: the named one if it is ranked here; of `names` the best where none is named."""
    ranked = [row for row in task.rows if row.ranked and row.architecture in names]
    return next((row for row in ranked if not named or row.architecture == named), None)


def _scale(task: TaskBoard, named: str, names: Sequence[str]) -> Scale | None:
    """None where the reference has no score, or beats nothing that needs no training."""
    one = _reference(task, named, names)
    if one is None or one.mean is None:
        return None
    worst = stats.pessimistic([task.key(score) for score in one.scores])
    zero = next((line for line in task.lines if worst < task.key(line.value)), None)
    if zero is None:
        return None
    return Scale(task.task, task.metric, zero.value, zero.name, one.mean, one.architecture)


def _standings(tasks: Sequence[TaskBoard], scales: Sequence[Scale]) -> list[Standing]:
    names = _names(tasks)
    ranks = stats.ranks([[_mean(task, a) for a in names] for task in tasks]).mean(axis=0)
    found = [_standing(a, float(rank), tasks, scales) for a, rank in zip(names, ranks, strict=True)]
    return sorted(found, key=lambda row: (-(row.iqm or 0.0), row.rank, row.architecture))


def _mean(task: TaskBoard, name: str) -> float:
    """Larger is better; −∞ for no score."""
    row = _ranked(task).get(name)
    return -math.inf if row is None or row.mean is None else -task.key(row.mean)


def _standing(name: str, rank: float, tasks: Sequence[TaskBoard], scales: Sequence[Scale]) -> Standing:
    rows = {task.task: _ranked(task).get(name) for task in tasks}
    runs = {s.task: stats.normalised(row.scores, s.zero, s.one) if (row := rows[s.task]) else [] for s in scales}
    interval = stats.iqm_interval(list(runs.values())) if runs else None
    return Standing(
        architecture=name,
        scored=sum(row is not None for row in rows.values()),
        missing={task.task: _absence(task, name) for task in tasks if rows[task.task] is None},
        iqm=stats.iqm(list(runs.values())) if runs else None,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        mean=stats.mean(list(runs.values())) if runs else None,
        rank=rank,
        normalised=runs,
    )


def _absence(task: TaskBoard, name: str) -> str:
    row = next((row for row in task.rows if row.architecture == name), None)
    return "not run" if row is None else "not ranked" if row.status == "ok" else row.status


def _improvements(tasks: Sequence[TaskBoard], names: Sequence[str]) -> list[Improvement]:
    ranked = [_ranked(task) for task in tasks]
    runs = {
        a: [
            [-task.key(v) for v in rows[a].scores] if a in rows else []
            for task, rows in zip(tasks, ranked, strict=True)
        ]
        for a in names
    }
    found = {}
    for a, b in combinations(names, 2):
        p, interval = stats.improvement(runs[a], runs[b]), stats.improvement_interval(runs[a], runs[b])
        low, high = interval or (None, None)
        found[a, b] = Improvement(a, b, p, low, high)
        found[b, a] = Improvement(b, a, 1 - p, None if high is None else 1 - high, None if low is None else 1 - low)
    return [found[a, b] for a in names for b in names if a != b]


def _ranking(tasks: Sequence[TaskBoard], rows: Sequence[Standing]) -> Ranking:
    """Nobody is separated unless Friedman's test finds that somebody differs."""
    ordered = sorted(rows, key=lambda row: (row.rank, row.architecture))
    names = [row.architecture for row in ordered]
    tested = stats.friedman(stats.ranks([[_mean(task, a) for a in names] for task in tasks]))
    difference = stats.critical_difference(len(names), len(tasks))
    differ = len(names) == 2 or (tested is not None and tested[1] < LEVEL)
    bars = stats.groups([row.rank for row in ordered], difference if differ else math.inf)
    return Ranking(
        statistic=tested[0] if tested else None,
        p=tested[1] if tested else None,
        difference=difference,
        tasks_to_tell=stats.tasks_to_tell(len(names)),
        groups=[names[first : last + 1] for first, last in bars],
    )


def _notes(across: Across, tasks: Sequence[TaskBoard], empty: Sequence[str]) -> list[str]:
    """What must be said beside the aggregates, the most important first."""
    found = [f"{len(tasks)} tasks, each with the same weight: {', '.join(across.tasks)}"]
    if empty:
        found.append(f"left out, since nothing is ranked there: {', '.join(empty)}")
    found += [*_elsewhere(tasks), *_missing(across), *_scales(across, tasks), *_tested(across), *_seeds(across, tasks)]
    return found + _no_race(across.race)


def _no_race(race: Race | None) -> list[str]:
    return [] if race else ["no time to target: the reference is not ranked, or has no score on valid, on any task"]


def _missing(across: Across) -> list[str]:
    """Every result that is missing, by reason, and as what it counts."""
    by_reason: dict[str, list[str]] = {}
    for row in sorted(across.rows, key=lambda row: row.architecture):
        for reason in sorted({*row.missing.values()}):
            where = ", ".join(task for task, why in row.missing.items() if why == reason)
            by_reason.setdefault(reason, []).append(f"{row.architecture} on {where}")
    count, cells = sum(len(row.missing) for row in across.rows), len(across.rows) * len(across.tasks)
    if not count:
        return [f"no result is missing: {len(across.rows)} architectures on {len(across.tasks)} tasks"]
    told = "; ".join(f"{reason}: {', '.join(items)}" for reason, items in sorted(by_reason.items()))
    counted = "each counts as normalised score 0, as worse than any run, as a share of the last places and as time ∞"
    trimmed = "IQM sets the worst quarter of runs aside, these among them; mean and mean rank do not"
    return [f"{count} of {cells} results are missing; {counted}; {told}", trimmed]


def _scales(across: Across, tasks: Sequence[TaskBoard]) -> list[str]:
    found = []
    if across.scales:
        told = [f"{s.task} {s.zero_name} {s.zero:.3f} → {s.one_name} {s.one:.3f}" for s in across.scales]
        rule = (
            "0 is the best baseline that the reference surely beats, and the least there is; 1 is the reference's mean"
        )
        found.append(f"normalised scores: {rule}: {'; '.join(told)}")
    if not across.reference:
        best = "the best row of each task is the reference"
        found.append(f"the suite names no reference, so {best}, and a new best row moves every score measured by it")
    if left := [task for task in across.tasks if task not in {s.task for s in across.scales}]:
        why = "the reference is not ranked there or surely beats no baseline"
        found.append(f"not in the normalised scores, since {why}: {', '.join(left)}")
    noise = {task.task: task.mdd or 0.0 for task in tasks}
    if narrow := [s.task for s in across.scales if abs(s.one - s.zero) < noise[s.task]]:
        why = "0 and 1 are nearer to each other than the smallest difference the task's table could show"
        found.append(f"mostly noise on {', '.join(narrow)}: {why}")
    return found


def _tested(across: Across) -> list[str]:
    ranking, n = across.ranking, len(across.tasks)
    if ranking is None:
        return []
    k, found = len(across.rows), []
    if ranking.p is not None:
        verdict = "the mean ranks differ" if ranking.p < LEVEL else "no difference of mean ranks is shown"
        found.append(f"Friedman's χ² = {ranking.statistic:.2f}, p = {ranking.p:.2g}: {verdict}")
    limits = f"critical difference of mean ranks (Nemenyi, 95%): {ranking.difference:.2f} at {n} tasks"
    if n < ranking.tasks_to_tell:
        limits += f"; {k} architectures cannot be told apart by ranks on fewer than {ranking.tasks_to_tell} tasks"
    return [*found, limits]


def _seeds(across: Across, tasks: Sequence[TaskBoard]) -> list[str]:
    counts = sorted({len(row.seeds) for task in tasks for row in task.rows if row.ranked})
    if counts == [1]:
        return ["one seed for each result: no intervals"]
    found = ["intervals: 95%, from seeds drawn anew within each task; they speak of other seeds, not of other tasks"]
    if counts[0] < 5:
        found.append(f"with {counts[0]} seed{'s' * (counts[0] > 1)} such intervals are too narrow")
    if len(counts) > 1:
        found.append(f"seeds differ between results: {counts[0]} to {counts[-1]}")
    return found


def _race(
    tasks: Sequence[TaskBoard], finals: Sequence[Record], named: str, targets: Mapping[str, float]
) -> Race | None:
    """None where no task has both a target and a row whose time is the unit."""
    names, runs = _names(tasks), {task.task: _runs(task, finals) for task in tasks}
    found = {task.task: _aim(task, _reference(task, named, names), runs[task.task], targets) for task in tasks}
    aims = {name: aim for name, aim in found.items() if aim is not None}
    raced = [task for task in tasks if task.task in aims]
    if not raced:
        return None
    meter, unit, path = _meter([r for task in raced for own in runs[task.task].values() for r in own])
    times = {a: [_time(task, runs[task.task].get(a, []), aims[task.task].value, path) for task in raced] for a in names}
    bases = [times[aims[task.task].reference][i] for i, task in enumerate(raced)]
    to_best = stats.ratios_to_best(times)
    rows = [_pace(a, [t.task for t in raced], times[a], bases, to_best[a]) for a in names]
    rows.sort(key=lambda row: (-row.score, -row.score_to_best, -row.reached, row.architecture))
    left = [task.task for task in tasks if task.task not in aims]
    race = Race(meter, unit, list(aims.values()), rows, [])
    race.notes.extend(_race_notes(race, named, left))
    return race


def _runs(task: TaskBoard, finals: Sequence[Record]) -> dict[str, list[Record]]:
    """The runs behind the ranked rows of a task."""
    own = [r for r in finals if gather.task_of(r) == task.task]
    return {a: runs for a, runs in gather.grouped(own).items() if a in _ranked(task)}


def _aim(
    task: TaskBoard, unit: Row | None, runs: Mapping[str, Sequence[Record]], targets: Mapping[str, float]
) -> Target | None:
    if unit is None:
        return None
    if task.task in targets:
        return Target(task.task, task.metric, float(targets[task.task]), "suite", unit.architecture)
    path = f"metrics.valid.{task.metric}"
    finals = [v for r in runs[unit.architecture] if (v := gather.finite(dig(r, path))) is not None]
    if not finals:
        return None
    value = stats.middle_final(finals, higher_is_better=task.higher_is_better)
    return Target(task.task, task.metric, value, unit.architecture, unit.architecture)


def _meter(runs: Sequence[Record]) -> tuple[str, str, str]:
    """What time is read from, its unit and its key: the fairest meter that all runs allow."""
    if all((gather.finite(dig(r, "speed.relative")) or 0.0) > 0 for r in runs):
        return "time, in tokens that the speed reference would have read meanwhile", "tokens", "relative"
    if notes.machines(runs) == 1:
        return "seconds of training", "s", "seconds"
    return "FLOPs of training, since hardware differs", "FLOP", "flops"


def _time(task: TaskBoard, runs: Sequence[Record], target: float, meter: str) -> float:
    times = [
        stats.time_to_target(_points(run, task.metric, meter), target, higher_is_better=task.higher_is_better)
        for run in runs
    ]
    return stats.median_time(times)


def _points(run: Record, metric: str, meter: str) -> Iterable[tuple[float, float]]:
    """(meter, validation score) wherever a run was scored, its end included."""
    key, speed = ("tokens", gather.finite(dig(run, "speed.relative")) or 1.0) if meter == "relative" else (meter, 1.0)
    scored = [(dig(p, key), dig(p, f"valid.{metric}")) for p in run.get("curve") or []]
    for at, score in [*scored, (dig(run, f"budget.used.{key}"), dig(run, f"metrics.valid.{metric}"))]:
        spent, value = gather.finite(at), gather.finite(score)
        if spent is not None and value is not None:
            yield spent / speed, value


def _pace(
    name: str, tasks: Sequence[str], times: Sequence[float], bases: Sequence[float], to_best: Sequence[float]
) -> Pace:
    ratios = [stats.time_ratio(time, base) for time, base in zip(times, bases, strict=True)]
    return Pace(
        architecture=name,
        score=stats.time_score(ratios),
        score_to_best=stats.time_score(to_best),
        reached=sum(math.isfinite(time) for time in times),
        times=_by_task(tasks, times),
        ratios=_by_task(tasks, ratios),
        to_best=_by_task(tasks, to_best),
    )


def _by_task(tasks: Sequence[str], values: Sequence[float]) -> dict[str, float | None]:
    return {task: gather.finite(value) for task, value in zip(tasks, values, strict=True)}


def _race_notes(race: Race, named: str, left: Sequence[str]) -> list[str]:
    told = [f"{t.task} {t.metric} {t.value:.3f} ({_source(t)})" for t in race.targets]
    found = [
        f"targets, on valid: {'; '.join(told)}",
        f"{race.meter}, at the first scoring that is at the target or past it; median over seeds, where a run that "
        "never gets there, or a row that is not ranked, is ∞",
        f"score: area under the profile to τ = {stats.TAU:g}, over {stats.TAU - 1:g}; 1 is the reference's own time, "
        f"0 is {stats.TAU:g} times it or more; each task weighs the same",
    ]
    units = {t.reference for t in race.targets}
    rival = "" if named else "; the suite names none, so it is the best row of each task"
    found.append(f"reference: {', '.join(sorted(units))}{rival}")
    slow = [t.task for t in race.targets if _row(race, t.reference).times[t.task] is None]
    if slow:
        found.append(
            f"the reference itself does not reach the target, so whoever does counts as time 0: {', '.join(slow)}"
        )
    if left:
        found.append(f"left out, since the reference is not ranked there or has no score on valid: {', '.join(left)}")
    return found


def _source(target: Target) -> str:
    return "set by the suite" if target.source == "suite" else f"where {target.source}'s median run ends"


def _row(race: Race, name: str) -> Pace:
    return next(row for row in race.rows if row.architecture == name)
