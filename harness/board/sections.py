"""What a board shows, in order: a section for each task and track, for a task over its tracks, and for all tasks."""

from harness.board import model, tracks
from harness.board.tables import Cell, Column, Line, Note, Section, cell, lines, name_column, ranks
from harness.table.rows import MEASURED, Measured, Row
from harness.units import NONE, human

NAME = name_column(lambda row: row.architecture)


def sections(board: model.Board) -> list[Section]:
    """Every section of a board."""
    tasks = [_task(task) for task in board.tasks]
    contrasts = [_contrast(contrast) for contrast in board.contrasts]
    climbs = [_ladder(ladder) for ladder in board.ladders]
    return tasks + contrasts + climbs + [section for across in board.across for section in _aggregate(across)]


def _task(board: model.TaskBoard) -> Section:
    columns = task_columns(board)
    notes = [Note(f"held equal: {board.equal}")] if board.equal else []
    notes += [Note(f"not ranked: {row.reason}", row.architecture) for row in board.rows if row.reason]
    entries = [_line(entry, columns) for entry in board.entries()]
    return Section(board, board.title, board.direction, columns, entries, [*notes, *map(Note, board.notes)])


def _line(entry: Row | model.Baseline, columns: list[Column]) -> Line:
    if isinstance(entry, Row):
        cells = [column.cell(entry) for column in columns]
        return Line(cells, "ranked" if entry.ranked else "unranked", entry.reason)
    known = [Cell(""), cell(entry.name, str), cell(entry.value)]  # as the first columns: rank, architecture, score
    return Line(known + [Cell("")] * (len(columns) - len(known)), "baseline", entry.about)


def task_columns(board: model.TaskBoard) -> list[Column]:
    """The columns of one task's table, without what no row has, or all have as usual."""
    others = dict.fromkeys(name for row in board.rows for name in row.also)
    known = [
        name for name, one in MEASURED.items() if any(getattr(r, name) not in (None, one.usual) for r in board.rows)
    ]
    mean, letter = "mean ± half of the 95% interval", "same letter: not separated"
    return [
        Column("rank", lambda row: Cell(ranks(row.ranks), row.rank_low), "ranks it may hold"),
        NAME,
        Column(board.metric or "score", lambda row: Cell(_score(row), row.mean), mean),
        *(_also(name) for name in others),
        Column("group", lambda row: cell(row.letters or None, str), letter, optional=True),
        Column("seeds", lambda row: cell(len(row.seeds), str), "seeds with a score"),
        *(_measured(name, MEASURED[name]) for name in known if MEASURED[name].title),
    ]


def _score(row: Row) -> str:
    """Mean ± half of the 95% interval."""
    if row.mean is None:
        return row.status
    if row.low is None or row.high is None:
        return f"{row.mean:.3f}" + ("" if row.ranked or row.status == "ok" else f" ({row.status})")
    return f"{row.mean:.3f} ± {(row.high - row.low) / 2:.3f}"


def _also(name: str) -> Column:
    """Another score of the task, which ranks nothing."""
    return Column(name, lambda row: cell(row.also.get(name)), "mean over the seeds; not ranked by", optional=True)


def _measured(name: str, shown: Measured) -> Column:
    return Column(shown.title, lambda row: cell(getattr(row, name), shown.text), shown.about, optional=shown.optional)


def _contrast(contrast: model.Contrast) -> Section:
    """One row for each architecture, one column for each track."""

    def in_track(i: int) -> Column:
        return Column(contrast.tracks[i], lambda item: Cell(ranks(item[1][i]), sum(item[1][i] or ()) or None))

    columns = [name_column(lambda item: item[0]), *map(in_track, range(len(contrast.tracks)))]
    title, about = f"{contrast.task} by what is held equal", "ranks an architecture may hold in each track"
    rows = lines(columns, contrast.places.items())
    return Section(contrast, title, about, columns, rows, [*map(Note, tracks.notes(contrast))])


def _ladder(ladder: model.Ladder) -> Section:
    """One row for each architecture, one column for each rung, where it is compared with the reference."""

    def at(i: int) -> Column:
        return Column(f"× at {ladder.rows[0].rungs[i].track}", lambda row: _times_compute(row.rungs[i].multiplier))

    saved = "compute the reference needs for the same loss, over what this row used; 90% interval"
    columns = [
        NAME,
        Column("floor", lambda row: cell(row.floor), "E of L(C) = E + A C^−a"),
        Column("exponent", lambda row: cell(row.exponent), "a"),
        Column("last rung, predicted", lambda row: Cell(_span(row.predicted)), "from the other rungs; 90% interval"),
        Column("last rung", lambda row: cell(row.rungs[-1].loss), "its mean over seeds"),
        *map(at, range(len(ladder.rows[0].rungs))),
        Column("× one rung on", lambda row: _times_compute(row.beyond), saved),
    ]
    said = [f"× is the {saved}; the reference is {ladder.reference}"]
    said += [f"{a} and {b} cross at {human(C, 'FLOP')}" for a, b, C in ladder.crossings]
    said += [f"not fitted: {name} lacks a rung" for name in ladder.left_out]
    return Section(
        ladder, f"{ladder.task} by compute", ladder.metric, columns, lines(columns, ladder.rows), [*map(Note, said)]
    )


def _span(found: tuple[float, float, float] | None, digits: int = 3) -> str:
    return NONE if found is None else "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*found, d=digits)


def _times_compute(found: tuple[float, float, float] | None) -> Cell:
    return Cell(_span(found, 2), found and found[0])


def _aggregate(found: model.Aggregate) -> list[Section]:
    """The standings and the times to target of one track, each where there is something to say."""
    track = f" ({found.track})" if found.track else ""
    over, notes = f"over {len(found.tasks)} tasks{track}", [*map(Note, found.notes)]
    made = []
    if found.rows:
        columns, about = _standings(found), "normalised, best first"
        every_pair = len(found.rows) > 1 and len(found.improvements) == len(found.rows) * (len(found.rows) - 1)
        folded = _matrix(found, f"probability of improvement{track}") if every_pair else None
        made.append(Section(found, over, about, columns, lines(columns, found.rows), notes, folded))
    if found.race is not None:
        columns, about = _times(found.race), "best first; ∞ where it was never reached"
        rows, beside = lines(columns, found.race.rows), [*map(Note, found.race.notes)]
        made.append(Section(found.race, f"time to target{track}", about, columns, rows, beside))
    if not made:
        made.append(Section(found, f"time to target{track}" if len(found.tasks) == 1 else over, notes=notes))
    return made


def _standings(found: model.Aggregate) -> list[Column]:
    """The columns of the standings; the last compares with the reference, or with the best row without one."""
    names, count = [row.architecture for row in found.rows], len(found.tasks)
    other = found.reference if found.reference in names else names[0]
    against = {i.first: i for i in found.improvements if i.second == other}

    def beats(row: model.Standing) -> Cell:
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


def _matrix(found: model.Aggregate, title: str) -> Section:
    """P(row > column) of every pair."""
    chances = {(i.first, i.second): i.probability for i in found.improvements}

    def versus(other: str) -> Column:
        return Column(other, lambda row: cell(chances.get((row.architecture, other)), "{:.2f}".format))

    columns = [NAME, *(versus(row.architecture) for row in found.rows)]
    about = "how often a run of the row is better than one of the column, averaged over tasks; a tie is half"
    return Section(found, title, about, columns, lines(columns, found.rows))


def _times(found: model.TimeToTarget) -> list[Column]:
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


def _on(target: model.Target, unit: str) -> Column:
    """The time on one task, like `16 s (×1.0)`."""

    def cell(row: model.TargetTimes) -> Cell:
        time, ratio = row.times[target.task], row.ratios[target.task]
        if time is None:
            return Cell("∞")
        return Cell(human(time, unit) + ("" if ratio is None else f" (×{ratio:.2f})"), time)

    return Column(target.task, cell, f"time to {target.metric} {target.value:.3f}", optional=True)


def _between(known: model.Standing | model.Improvement) -> str:
    return "" if known.low is None or known.high is None else f"[{known.low:.2f}, {known.high:.2f}]"
