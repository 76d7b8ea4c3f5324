"""What holds over several tasks of one track: normalised scores, mean ranks, and time to target."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from harness.board.aggregate import standings
from harness.board.aggregate.standings import on_all_tasks
from harness.board.aggregate.times import time_to_target
from harness.board.model import Aggregate, TaskBoard
from harness.records.record import Record


def make(
    tasks: Sequence[TaskBoard],
    finals: Sequence[Record],
    reference: str = "",
    targets: Mapping[str, float] | None = None,
) -> list[Aggregate]:
    """What holds over the tasks of each track, in the order of the tracks.

    Args:
        tasks: tables already ranked. finals: the records they are made from.
        reference: the row everything is measured by; by default each task's best.
        targets: validation scores to reach, by task; by default where the reference's median run ends.
    """
    made = []
    for track in dict.fromkeys(task.track for task in tasks):
        own = [task for task in tasks if task.track == track]
        made.append(_track(track, own, [r for r in finals if r.spec.track == track], reference, targets or {}))
    return [aggregate for aggregate in made if aggregate is not None]


def _track(
    track: str, boards: list[TaskBoard], finals: Sequence[Record], reference: str, targets: Mapping[str, float]
) -> Aggregate | None:
    tasks = [board for board in boards if board.ranked]
    if not tasks or (len(tasks) == 1 and not (reference or targets)):
        return None  # times to the best row of one task say no more than its curves
    names = [task.task for task in tasks]
    whole = [name for name in on_all_tasks(tasks) if all(task.ranked_row(name) for task in tasks)]
    if len(tasks) > 1 and len(whole) < 2:
        few = f"only {whole[0]} has" if whole else "no architecture has"
        note = f"nothing is said over {', '.join(names)}: {few} a score on every task"
        return Aggregate(track, names, reference, notes=[note])
    race = time_to_target(tasks, finals, reference, targets)
    none = ["no time to target: the reference is not ranked, or has no score on valid, on any task"]
    made = Aggregate(track, names, reference, race=race, notes=[] if race else none)
    if len(tasks) == 1:
        return made
    made = standings.with_standings(made, tasks)
    empty = [board.task for board in boards if board not in tasks]
    return dataclasses.replace(made, notes=[*standings.notes(made, tasks, empty), *made.notes])
