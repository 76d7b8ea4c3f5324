"""Whether the ranking of a task depends on what is held equal: its tracks side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from harness.board.grids import Cell, Grid, Head
from harness.board.model import Contrast, Reversal, Row, TaskBoard
from harness.board.tables import place

Pair = tuple[str, str]


def contrasts(tasks: Iterable[TaskBoard]) -> list[Contrast]:
    """One for each task that was played in two tracks or more."""
    by_task: dict[str, list[TaskBoard]] = {}
    for board in tasks:
        by_task.setdefault(board.task, []).append(board)
    return [_contrast(task, boards) for task, boards in by_task.items() if len(boards) > 1]


def _contrast(task: str, boards: Sequence[TaskBoard]) -> Contrast:
    rows = {board.track: {row.architecture: row for row in board.rows} for board in boards}
    names = sorted({name for found in rows.values() for name in found})
    places = {name: [_places(found.get(name)) for found in rows.values()] for name in names}
    better = {board.track: _separated(board) for board in boards}
    reversals, undecided = [], 0
    for a, b in combinations(names, 2):
        above = [track for track, pairs in better.items() if (a, b) in pairs]
        below = [track for track, pairs in better.items() if (b, a) in pairs]
        both = [track for track, found in rows.items() if all(_places(found.get(name)) for name in (a, b))]
        if above and below:
            reversals.append(Reversal(a, b, above, below))
        elif (above or below) and len(above) + len(below) < len(both):
            undecided += 1
    return Contrast(
        task=task,
        tracks=list(rows),
        places=dict(sorted(places.items(), key=lambda item: (_average(item[1]), item[0]))),
        reversals=reversals,
        agreement=[(a.track, b.track, tau) for a, b in combinations(boards, 2) if (tau := _tau(a, b)) is not None],
        undecided=undecided,
    )


def _places(row: Row | None) -> tuple[int, int] | None:
    return None if row is None else row.places


def _average(spans: Sequence[tuple[int, int] | None]) -> float:
    """Mean middle of the places; an architecture that is nowhere ranked comes last."""
    middles = [sum(span) / 2 for span in spans if span is not None]
    return sum(middles) / len(middles) if middles else math.inf


def _separated(board: TaskBoard) -> set[Pair]:
    """Pairs (better, worse) that share no letter."""
    ranked = [row for row in board.rows if row.ranked]
    return {(a.architecture, b.architecture) for a, b in combinations(ranked, 2) if not a.groups & b.groups}


def _tau(first: TaskBoard, second: TaskBoard) -> float | None:
    """Kendall's τ-b between the means of two tracks; None with fewer than three architectures or none apart."""
    from scipy.stats import kendalltau

    means = [_means(board) for board in (first, second)]
    shared = sorted(means[0].keys() & means[1].keys())
    if len(shared) < 3:
        return None
    tau = float(kendalltau(*([found[name] for name in shared] for found in means)).statistic)
    return tau if math.isfinite(tau) else None


def _means(board: TaskBoard) -> Mapping[str, float]:
    """Smaller is better, in whatever unit the track ranks by."""
    return {row.architecture: board.key(row.mean) for row in board.rows if row.ranked and row.mean is not None}


def grid(contrast: Contrast) -> Grid:
    """One row for each architecture, one column for each track."""
    heads = [Head("architecture", left=True), *(Head(track) for track in contrast.tracks)]
    rows: list[list[Cell]] = [
        [(name, name), *((place(span), sum(span) if span else None) for span in spans)]
        for name, spans in contrast.places.items()
    ]
    about = "places an architecture may hold in each track"
    return Grid(f"{contrast.task} by what is held equal", about, heads, rows, notes(contrast))


def notes(contrast: Contrast) -> list[str]:
    """What the tracks say together, in words."""
    found = []
    for r in contrast.reversals:
        found.append(
            f"the order depends on what is held equal: {r.first} above {r.second} in {', '.join(r.first_better)}; "
            f"below it in {', '.join(r.second_better)}"
        )
    if not contrast.reversals:
        found.append("no two architectures are separated one way in one track and the other way in another")
    if contrast.undecided:
        pairs = "pair is" if contrast.undecided == 1 else "pairs are"
        found.append(f"{contrast.undecided} {pairs} separated in some tracks and not in others")
    if contrast.agreement:
        told = ", ".join(f"{a}–{b} {tau:.2f}" for a, b, tau in contrast.agreement)
        found.append(f"agreement of the mean scores (Kendall's τ, 1: same order): {told}")
    return found
