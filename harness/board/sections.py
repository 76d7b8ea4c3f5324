"""What a board shows, in order: a section for each task and track, for a task over its tracks, and for all tasks."""

from __future__ import annotations

from harness.board import tracks
from harness.board.aggregate import tables as aggregate
from harness.board.model import Baseline, Board, Contrast, TaskBoard
from harness.board.rows import MEASURED, Measured, Row
from harness.board.tables import Cell, Column, Line, Note, Section, cell, lines, name_column, ranks


def sections(board: Board) -> list[Section]:
    """Every section of a board."""
    tasks = [_task(task) for task in board.tasks]
    contrasts = [_contrast(contrast) for contrast in board.contrasts]
    return tasks + contrasts + [section for across in board.across for section in aggregate.sections(across)]


def _task(board: TaskBoard) -> Section:
    columns = task_columns(board)
    notes = [Note(f"held equal: {board.equal}")] if board.equal else []
    notes += [Note(f"not ranked: {row.reason}", row.architecture) for row in board.rows if row.reason]
    entries = [_line(entry, columns) for entry in board.entries()]
    return Section(board, board.title, board.direction, columns, entries, notes + [Note(text) for text in board.notes])


def _line(entry: Row | Baseline, columns: list[Column]) -> Line:
    if isinstance(entry, Row):
        cells = [column.cell(entry) for column in columns]
        return Line(cells, "ranked" if entry.ranked else "unranked", entry.reason)
    known = [Cell(""), cell(entry.name, str), cell(entry.value)]  # as the first columns: rank, architecture, score
    return Line(known + [Cell("")] * (len(columns) - len(known)), "baseline", entry.about)


def task_columns(board: TaskBoard) -> list[Column]:
    """The columns of one task's table. What was measured for no row is left out."""
    others = dict.fromkeys(name for row in board.rows for name in row.also)
    known = [name for name in MEASURED if any(getattr(row, name) is not None for row in board.rows)]
    mean, letter = "mean ± half of the 95% interval", "same letter: not separated"
    return [
        Column("rank", lambda row: Cell(ranks(row.ranks), row.rank_low), "ranks it may hold"),
        name_column(lambda row: row.architecture),
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


def _contrast(contrast: Contrast) -> Section:
    """One row for each architecture, one column for each track."""

    def in_track(i: int) -> Column:
        return Column(contrast.tracks[i], lambda item: Cell(ranks(item[1][i]), sum(item[1][i] or ()) or None))

    columns = [name_column(lambda item: item[0]), *map(in_track, range(len(contrast.tracks)))]
    return Section(
        subject=contrast,
        title=f"{contrast.task} by what is held equal",
        about="ranks an architecture may hold in each track",
        columns=columns,
        lines=lines(columns, contrast.places.items()),
        notes=[Note(text) for text in tracks.notes(contrast)],
    )
