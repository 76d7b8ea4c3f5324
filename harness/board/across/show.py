"""What is said over several tasks, as tables: on a terminal, in Markdown, and for the page."""

from __future__ import annotations

from harness.board.across.model import Across, Pace, Race
from harness.board.grids import Cell, Grid, Head
from harness.board.tables import NONE, human

NAME = Head("architecture", left=True)


def grids(across: Across) -> list[Grid]:
    """The aggregates and the times of one track."""
    found = [aggregates(across)] if across.rows else []
    if across.race is not None:
        found.append(times(across.race, across.track))
    elif not across.rows:
        title = "time to target" if len(across.tasks) == 1 else f"over {len(across.tasks)} tasks"
        found.append(Grid(_titled(title, across.track), "", [], [], across.notes))
    return found


def _titled(title: str, track: str) -> str:
    return f"{title} ({track})" if track else title


def versus(across: Across) -> str:
    """The row whom the others' probability of improvement is told against."""
    names = [row.architecture for row in across.rows]
    return across.reference if across.reference in names else names[0]


def aggregates(across: Across) -> Grid:
    """One row for each architecture, best first."""
    other = versus(across)
    heads = [
        NAME,
        Head("IQM", "interquartile mean of normalised scores over seeds and tasks"),
        Head("95% interval", "over seeds", optional=True),
        Head("mean", "of normalised scores, each task of the same weight"),
        Head("mean rank", "over the tasks, 1 is best"),
        Head("tasks", "on which it has a score; the rest counts as worst"),
        Head(f"P(> {other})", f"probability that a run is better than one of {other}, averaged over tasks"),
    ]
    count = len(across.tasks)
    against = {i.first: i for i in across.improvements if i.second == other}
    rows = []
    for row in across.rows:
        beats = against.get(row.architecture)
        chance = NONE if beats is None else f"{beats.probability:.2f}{_between(beats.low, beats.high)}"
        rows.append(
            [
                (row.architecture, row.architecture),
                (_number(row.iqm), row.iqm),
                (_between(row.low, row.high).strip() or NONE, row.low),
                (_number(row.mean), row.mean),
                (f"{row.rank:.2f}", row.rank),
                (f"{row.scored}/{count}", row.scored),
                (chance, beats.probability if beats else None),
            ]
        )
    return Grid(_titled(f"over {count} tasks", across.track), "normalised, best first", heads, rows, across.notes)


def matrix(across: Across) -> Grid:
    """P(row > column) of every pair."""
    names = [row.architecture for row in across.rows]
    found = {(i.first, i.second): i.probability for i in across.improvements}
    rows: list[list[Cell]] = [
        [(a, a), *((f"{p:.2f}", p) if (p := found.get((a, b))) is not None else (NONE, None) for b in names)]
        for a in names
    ]
    about = "how often a run of the row is better than one of the column, averaged over tasks; a tie is half"
    heads = [NAME, *(Head(name) for name in names)]
    return Grid(_titled("probability of improvement", across.track), about, heads, rows, [])


def times(race: Race, track: str = "") -> Grid:
    """One row for each architecture, fastest first."""
    base = "the reference's own is 1, whoever else takes part"
    heads = [
        NAME,
        Head("score", f"area under the profile of times over the reference's; {base}"),
        Head("to best", "the same of times over the fastest of this board (AlgoPerf)"),
        Head("reached", "tasks on which the median run reaches the target"),
        *(Head(t.task, f"time to {t.metric} {t.value:.3f}", optional=True) for t in race.targets),
    ]
    rows: list[list[Cell]] = [
        [
            (row.architecture, row.architecture),
            (f"{row.score:.3f}", row.score),
            (f"{row.score_to_best:.3f}", row.score_to_best),
            (f"{row.reached}/{len(race.targets)}", row.reached),
            *((_time(row, t.task, race.unit), row.times[t.task]) for t in race.targets),
        ]
        for row in race.rows
    ]
    return Grid(_titled("time to target", track), "best first; ∞ where it was never reached", heads, rows, race.notes)


def _time(row: Pace, task: str, unit: str) -> str:
    """Like `16 s (×1.0)`."""
    time, ratio = row.times[task], row.ratios[task]
    if time is None:
        return "∞"
    return human(time, unit) + ("" if ratio is None else f" (×{ratio:.2f})")


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
