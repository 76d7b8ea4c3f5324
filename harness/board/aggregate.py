"""What holds over several tasks of one track: normalised scores, mean ranks, and time to target."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations

from harness.board.model import Aggregate, Improvement, RankTest, Scale, Standing, TaskBoard
from harness.board.times import on_all_tasks, reference_row, time_to_target
from harness.errors import UserError
from harness.records.record import Record
from harness.stats import LEVEL
from harness.stats import aggregate as stats
from harness.table.comparable import grouped


def make(
    tasks: Sequence[TaskBoard],
    finals: Sequence[Record],
    reference: str = "",
    targets: Mapping[str, float] | None = None,
    *,
    all_pairs: bool = True,
) -> list[Aggregate]:
    """What holds over the tasks of each track, in the order of the tracks.

    Args:
        tasks: tables already ranked. finals: the records they are made from.
        reference: the row everything is measured by; by default each task's best.
        targets: validation scores to reach, by task; by default where the reference's median run ends.
        all_pairs: whether the probability of improvement is given for all pairs, or against the reference alone (the
            best row without one).
    """
    made = []
    for track, own in grouped((task.track, task) for task in tasks).items():
        runs = [r for r in finals if r.spec.track == track]
        made.append(_track(track, own, runs, reference, targets or {}, all_pairs=all_pairs))
    return [aggregate for aggregate in made if aggregate is not None]


def _track(
    track: str,
    boards: list[TaskBoard],
    finals: Sequence[Record],
    reference: str,
    targets: Mapping[str, float],
    *,
    all_pairs: bool,
) -> Aggregate | None:
    tasks = [board for board in boards if board.ranked]
    if not tasks or (len(tasks) == 1 and not (reference or targets)):
        return None  # times to the best row of one task say no more than its curves
    names, known = [task.task for task in tasks], on_all_tasks(tasks)
    whole = [name for name in known if all(task.ranked_row(name) for task in tasks)]
    if len(tasks) > 1 and len(whole) < 2:
        few = f"only {whole[0]} has" if whole else "no architecture has"
        note = f"nothing is said over {', '.join(names)}: {few} a score on every task"
        return Aggregate(track, names, reference, notes=[note])
    try:
        race = time_to_target(tasks, finals, reference, targets)
        why = "the reference is not ranked, or has no score on valid, on any task"
    except UserError as error:  # published curves that cannot be read
        race, why = None, str(error)
    none = [] if race else [f"no time to target: {why}"]
    if len(tasks) == 1:
        return Aggregate(track, names, reference, race=race, notes=none)
    scales = [found for task in tasks if (found := scale(task, reference, known)) is not None]
    ranks = stats.ranks([[_score(task, name) for name in known] for task in tasks]).mean(axis=0)
    rows = [_standing(name, float(rank), tasks, scales) for name, rank in zip(known, ranks, strict=True)]
    rows.sort(key=lambda row: (-(row.iqm or 0.0), row.rank, row.architecture))
    ordered = [row.architecture for row in rows]
    one = reference if reference in ordered else ordered[0]
    pairs = combinations(ordered, 2) if all_pairs else ((name, one) for name in ordered if name != one)
    improvements = _improvements(tasks, ordered, pairs)
    ranking = _rank_test(tasks, rows) if len(rows) > 1 else None
    made = Aggregate(track, names, reference, rows, scales, improvements, ranking, race)
    return replace(made, notes=[*_notes(made, tasks, boards), *none])


def scale(task: TaskBoard, named: str, names: Sequence[str]) -> Scale | None:
    """The scale of normalised scores; None where the reference has no score, or beats no baseline."""
    one = reference_row(task, named, names)
    if one is None or one.mean is None:
        return None
    worst = stats.pessimistic([task.cost(score) for score in one.scores])
    for zero in task.lines:
        if worst < task.cost(zero.value):
            return Scale(task.task, task.metric, zero.value, zero.name, one.mean, one.architecture)
    return None


def _score(task: TaskBoard, name: str) -> float:
    """Larger is better; −∞ for no score."""
    row = task.ranked_row(name)
    return -math.inf if row is None or row.mean is None else -task.cost(row.mean)


def _standing(name: str, rank: float, tasks: Sequence[TaskBoard], scales: Sequence[Scale]) -> Standing:
    rows = {task.task: task.ranked_row(name) for task in tasks}
    runs = {s.task: stats.normalised(row.scores, s.zero, s.one) if (row := rows[s.task]) else [] for s in scales}
    scores = list(runs.values())
    iqm, mean = (stats.iqm(scores), stats.mean(scores)) if scores else (None, None)
    low, high = (scores and stats.iqm_interval(scores)) or (None, None)
    missing = {task.task: _absence(task, name) for task in tasks if rows[task.task] is None}
    return Standing(name, len(tasks) - len(missing), missing, iqm, low, high, mean, rank, runs)


def _absence(task: TaskBoard, name: str) -> str:
    status = next((row.status for row in task.rows if row.architecture == name), "not run")
    return "not ranked" if status == "ok" else status


def _improvements(
    tasks: Sequence[TaskBoard], names: Sequence[str], pairs: Iterable[tuple[str, str]]
) -> list[Improvement]:
    """Both ways for each of the pairs."""

    def runs(name: str) -> list[list[float]]:
        rows = [(task, task.ranked_row(name)) for task in tasks]
        return [[-task.cost(score) for score in row.scores] if row else [] for task, row in rows]

    found, scores = {}, {name: runs(name) for name in names}
    for a, b in pairs:
        p, interval = stats.improvement(scores[a], scores[b]), stats.improvement_interval(scores[a], scores[b])
        low, high = interval or (None, None)
        found[a, b] = Improvement(a, b, p, low, high)
        found[b, a] = Improvement(b, a, 1 - p, None if high is None else 1 - high, None if low is None else 1 - low)
    return [found[pair] for pair in permutations(names, 2) if pair in found]


def _rank_test(tasks: Sequence[TaskBoard], rows: Sequence[Standing]) -> RankTest:
    """Nobody is separated unless Friedman's test finds that somebody differs."""
    ordered = sorted(rows, key=lambda row: (row.rank, row.architecture))
    names = [row.architecture for row in ordered]
    tested = stats.friedman(stats.ranks([[_score(task, name) for name in names] for task in tasks]))
    difference = stats.critical_difference(len(names), len(tasks))
    differ = len(names) == 2 or (tested is not None and tested[1] < LEVEL)
    bars = stats.groups([row.rank for row in ordered], difference if differ else math.inf)
    groups = [names[first : last + 1] for first, last in bars]
    statistic, p = tested or (None, None)
    return RankTest(statistic, p, difference, stats.tasks_to_tell(len(names)), groups)


def _notes(aggregate: Aggregate, tasks: Sequence[TaskBoard], boards: Sequence[TaskBoard]) -> list[str]:
    """Notes beside the aggregates, the most important first."""
    found = [f"{len(tasks)} tasks, each with the same weight: {', '.join(aggregate.tasks)}"]
    if empty := [board.task for board in boards if board not in tasks]:
        found.append(f"left out, since nothing is ranked there: {', '.join(empty)}")
    if some := {row.architecture for task in tasks for row in task.rows} - {*on_all_tasks(tasks)}:
        found.append(f"left out, since the suite runs them on some of the tasks only: {', '.join(sorted(some))}")
    tested = _tested(aggregate, aggregate.ranking) if aggregate.ranking else []
    return [*found, *_missing(aggregate), *_scales(aggregate, tasks), *tested, *_seeds(tasks)]


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
