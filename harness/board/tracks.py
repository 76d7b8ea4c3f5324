"""Whether the ranking of a task depends on what is held equal: its tracks side by side."""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations

from scipy.stats import kendalltau

from harness.board.model import Contrast, Reversal, TaskBoard
from harness.table.comparable import grouped
from harness.table.rows import finite

Span = tuple[int, int]


def contrasts(tasks: Iterable[TaskBoard]) -> list[Contrast]:
    """One for each task with two tracks or more."""
    by_task = grouped((board.task, board) for board in tasks)
    return [_contrast(boards) for boards in by_task.values() if len(boards) > 1]


def _contrast(boards: Sequence[TaskBoard]) -> Contrast:
    ranks = {board.track: {row.architecture: row.ranks for row in board.rows} for board in boards}
    names = sorted({name for found in ranks.values() for name in found})
    places = {name: [found.get(name) for found in ranks.values()] for name in names}
    better = {
        board.track: {(a.architecture, b.architecture) for a, b in combinations(board.ranked, 2) if a.separated_from(b)}
        for board in boards
    }
    reversals, undecided = [], 0
    for a, b in combinations(names, 2):
        above = [track for track, pairs in better.items() if (a, b) in pairs]
        below = [track for track, pairs in better.items() if (b, a) in pairs]
        both = [track for track, found in ranks.items() if found.get(a) and found.get(b)]
        if above and below:
            reversals.append(Reversal(a, b, above, below))
        elif (above or below) and len(above) + len(below) < len(both):
            undecided += 1
    return Contrast(
        task=boards[0].task,
        tracks=list(ranks),
        places=dict(sorted(places.items(), key=lambda item: (_average(item[1]), item[0]))),
        reversals=reversals,
        agreement=[(a.track, b.track, tau) for a, b in combinations(boards, 2) if (tau := _tau(a, b)) is not None],
        undecided=undecided,
    )


def _average(spans: Sequence[Span | None]) -> float:
    """Mean middle of the ranks; an architecture that is nowhere ranked comes last."""
    middles = [sum(span) / 2 for span in spans if span is not None]
    return sum(middles) / len(middles) if middles else math.inf


def _tau(first: TaskBoard, second: TaskBoard) -> float | None:
    """Kendall's τ-b between the means of two tracks; None with fewer than three architectures or none apart."""
    # smaller is better in both, in whatever unit each ranks by
    a, b = ({row.architecture: board.cost(row.mean or 0.0) for row in board.ranked} for board in (first, second))
    common = sorted(a.keys() & b.keys())
    if len(common) < 3:
        return None
    return finite(float(kendalltau([a[name] for name in common], [b[name] for name in common]).statistic))


def notes(contrast: Contrast) -> list[str]:
    """What the tracks say together, in words."""
    found = [
        f"the order depends on what is held equal: {r.first} above {r.second} in {', '.join(r.first_better)}; "
        f"below it in {', '.join(r.second_better)}"
        for r in contrast.reversals
    ]
    if not found:
        found = ["no two architectures are separated one way in one track and the other way in another"]
    if contrast.undecided:
        pairs = "pair is" if contrast.undecided == 1 else "pairs are"
        found.append(f"{contrast.undecided} {pairs} separated in some tracks and not in others")
    if contrast.agreement:
        values = ", ".join(f"{a}–{b} {tau:.2f}" for a, b, tau in contrast.agreement)
        found.append(f"agreement of the mean scores (Kendall's τ, 1: same order): {values}")
    return found
