"""What architectures make of more compute: tasks whose tracks are sizes that grow together with their tokens."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from harness.board.model import Climb, Ladder, Rung, TaskBoard
from harness.records.record import Record
from harness.stats.scaling import FEWEST, Fit, crossing, fit, multiplier
from harness.table.comparable import grouped
from harness.table.rows import Row

SAME = 0.02
"""How far tokens a parameter may differ between rungs, relative: both are rounded."""


def ladders(tasks: Iterable[TaskBoard], records: Iterable[Record], reference: str) -> list[Ladder]:
    """One for each task with enough tracks of the kind, whose losses are lower where they are better."""
    rungs = grouped((record.spec.task_label, record) for record in records)
    by_task = grouped((board.task, board) for board in tasks if not board.higher_is_better)
    found = (_ladder(boards, _tracks(rungs.get(task, [])), reference) for task, boards in by_task.items())
    return [ladder for ladder in found if ladder is not None]


def _tracks(records: Sequence[Record]) -> list[str]:
    """The tracks from the smallest size to the largest; none where tokens do not grow in proportion."""
    sizes: dict[str, tuple[float, float]] = {}
    for record in records:
        match, stop = record.spec.match, record.spec.stop
        if match is None or match.meter != "params" or stop is None or stop.meter != "tokens" or stop.target:
            return []
        sizes[record.spec.track] = match.target, stop.limit
    each = [tokens / params for params, tokens in sizes.values()]
    distinct = len({params for params, _ in sizes.values()}) == len(sizes)
    grows = distinct and max(each, default=0) <= (1 + SAME) * min(each, default=0)
    return sorted(sizes, key=lambda track: sizes[track]) if grows else []


def _ladder(boards: Sequence[TaskBoard], tracks: Sequence[str], reference: str) -> Ladder | None:
    if len(tracks) < FEWEST or {board.track for board in boards} != {*tracks}:
        return None
    ordered = sorted(boards, key=lambda board: tracks.index(board.track))
    names = {row.architecture: None for board in ordered for row in board.ranked}
    every = {name: [board.ranked_row(name) for board in ordered] for name in names}
    rows = {name: [row for row in own if row is not None] for name, own in every.items()}
    whole = {name: own for name, own in rows.items() if len(own) == len(tracks)}
    if not whole:
        return None
    by_last = sorted(whole, key=lambda name: whole[name][-1].mean or math.inf)
    fits = {name: _fit(whole[name], seed) for seed, name in enumerate(by_last)}
    other = reference if reference in whole else by_last[0]
    return Ladder(
        task=ordered[0].task,
        metric=ordered[0].direction,
        reference=other,
        rows=[_climb(name, whole[name], tracks, fits, other) for name in by_last],
        crossings=_crossings(whole, fits),
        left_out=[name for name in names if name not in whole],
    )


def _climb(name: str, rows: Sequence[Row], tracks: Sequence[str], fits: Mapping[str, Fit], reference: str) -> Climb:
    compute = _compute(rows)
    own, other = fits[name], fits[reference]

    def saved(C: float) -> tuple[float, float, float] | None:
        return None if name == reference else multiplier(own, other, C)

    rungs = [Rung(track, C, row.mean or 0.0, saved(C)) for track, C, row in zip(tracks, compute, rows, strict=True)]
    predicted = _fit(rows[:-1], 0).predicted(compute[-1], len(rows[-1].seeds)) if len(rows) > FEWEST else None
    return Climb(name, rungs, own.law.E, own.law.a, predicted, saved(_beyond(rows)))


def _compute(rows: Sequence[Row]) -> list[float]:
    return [row.flops or 0.0 for row in rows]


def _fit(rows: Sequence[Row], seed: int) -> Fit:
    return fit(_compute(rows), [[*row.by_seed.values()] for row in rows], seed)


def _beyond(rows: Sequence[Row]) -> float:
    """The compute one rung after the last."""
    before, last = _compute(rows[-2:])
    return last**2 / before


def _crossings(rows: Mapping[str, Sequence[Row]], fits: Mapping[str, Fit]) -> list[tuple[str, str, float]]:
    found = []
    for one, other in combinations(fits, 2):
        low = min(_compute([*rows[one], *rows[other]]))
        high = max(_beyond(rows[one]), _beyond(rows[other]))
        if C := crossing(fits[one].law, fits[other].law, low, high):
            found.append((one, other, C))
    return found
