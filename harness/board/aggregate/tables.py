"""The tables over several tasks: the standings, and times to target."""

from __future__ import annotations

from collections.abc import Sequence

from harness.board.model import Aggregate, Improvement, Standing, Target, TargetTimes, TimeToTarget
from harness.board.tables import Cell, Column, Note, Section, cell, lines, name_column
from harness.units import NONE, human

NAME = name_column(lambda row: row.architecture)


def sections(found: Aggregate) -> list[Section]:
    """The standings and the times to target of one track, each where there is something to say."""
    track = f" ({found.track})" if found.track else ""
    over, notes = f"over {len(found.tasks)} tasks{track}", [Note(text) for text in found.notes]
    made = []
    if found.rows:
        columns, about = _standings(found), "normalised, best first"
        folded = _matrix(found, f"probability of improvement{track}") if len(found.rows) > 1 else None
        made.append(Section(found, over, about, columns, lines(columns, found.rows), notes, folded))
    if found.race is not None:
        columns, about = _times(found.race), "best first; ∞ where it was never reached"
        beside = [Note(text) for text in found.race.notes]
        rows = lines(columns, found.race.rows)
        made.append(Section(found.race, f"time to target{track}", about, columns, rows, beside))
    if not made:
        made.append(Section(found, f"time to target{track}" if len(found.tasks) == 1 else over, notes=notes))
    return made


def _standings(found: Aggregate) -> Sequence[Column]:
    """The columns of the standings; the last compares with the reference, or with the best row without one."""
    names, count = [row.architecture for row in found.rows], len(found.tasks)
    other = found.reference if found.reference in names else names[0]
    against = {i.first: i for i in found.improvements if i.second == other}

    def beats(row: Standing) -> Cell:
        found = against.get(row.architecture)
        return Cell(f"{found.probability:.2f} {_between(found)}".strip(), found.probability) if found else cell(None)

    mean = "of normalised scores, each task of the same weight"
    better = f"probability that a run is better than one of {other}, averaged over tasks"
    return [
        NAME,
        Column("IQM", lambda row: cell(row.iqm), "interquartile mean of normalised scores over seeds and tasks"),
        Column("95% interval", lambda row: Cell(_between(row) or NONE, row.low), "over seeds", optional=True),
        Column("mean", lambda row: cell(row.mean), mean),
        Column("mean rank", lambda row: cell(row.rank, "{:.2f}".format), "over the tasks, 1 is best"),
        Column("tasks", lambda row: cell(row.scored, f"{{}}/{count}".format), "with a score; the rest counts as worst"),
        Column(f"P(> {other})", beats, better),
    ]


def _matrix(found: Aggregate, title: str) -> Section:
    """P(row > column) of every pair."""
    chances = {(i.first, i.second): i.probability for i in found.improvements}

    def versus(other: str) -> Column:
        return Column(other, lambda row: cell(chances.get((row.architecture, other)), "{:.2f}".format))

    columns = [NAME, *(versus(row.architecture) for row in found.rows)]
    about = "how often a run of the row is better than one of the column, averaged over tasks; a tie is half"
    return Section(found, title, about, columns, lines(columns, found.rows))


def _times(found: TimeToTarget) -> Sequence[Column]:
    count = len(found.targets)
    area = "area under the profile of times over the reference's; the reference's own is 1, whoever else takes part"
    best = "the same of times over the fastest of this board (AlgoPerf)"
    reached = "tasks on which the median run reaches the target"
    return [
        NAME,
        Column("score", lambda row: cell(row.score), area),
        Column("to best", lambda row: cell(row.score_to_best), best),
        Column("reached", lambda row: cell(row.reached, f"{{}}/{count}".format), reached),
        *(_on(target, found.unit) for target in found.targets),
    ]


def _on(target: Target, unit: str) -> Column:
    """The time on one task, like `16 s (×1.0)`."""

    def cell(row: TargetTimes) -> Cell:
        time, ratio = row.times[target.task], row.ratios[target.task]
        if time is None:
            return Cell("∞")
        return Cell(human(time, unit) + ("" if ratio is None else f" (×{ratio:.2f})"), time)

    return Column(target.task, cell, f"time to {target.metric} {target.value:.3f}", optional=True)


def _between(known: Standing | Improvement) -> str:
    return "" if known.low is None or known.high is None else f"[{known.low:.2f}, {known.high:.2f}]"
