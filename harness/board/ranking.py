"""From records to a board: rows gathered, ranked by their test scores, and annotated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness import stats
from harness.board import gather, notes, questions, tuning
from harness.board.across import build
from harness.board.gather import Record, dig
from harness.board.model import Board, Line, Row, TaskBoard
from harness.board.tracks import contrasts


def make(
    suite: str,
    records: Iterable[Record],
    baselines: Iterable[Mapping[str, Any]],
    about: str = "",
    order: Sequence[tuple[str, str]] = (),
    reference: str = "",
    targets: Mapping[str, float] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
) -> Board:
    """Rank the final runs of a suite, each task in each track by itself: those in `order` first, the rest by name.

    Then over the tracks of a task, and over the tasks of a track.

    The order of the records never matters. `reference` and `targets` as in `harness.board.across.build`.
    """
    ordered = gather.canonical(records)
    finals = [r for r in ordered if dig(r, "spec.kind") != "trial"]
    trained = [r for r in finals if not gather.is_external(r)]
    asked = questions.columns(finals)
    trials = [r for r in ordered if dig(r, "spec.kind") == "trial"]
    lines, position = list(baselines), {name: index for index, name in enumerate(order)}

    def ranked(own: Sequence[Record]) -> list[TaskBoard]:
        return [
            _task(
                name,
                [r for r in own if gather.column_of(r) == name],
                [r for r in trials if gather.column_of(r) == name],
                [b for b in lines if b["task_label"] == name[0]],
                (only or {}).get(name[0], ()),
            )
            for name in sorted({gather.column_of(r) for r in own}, key=lambda n: (position.get(n, len(order)), n))
        ]

    tasks = ranked(finals)
    across = build.make(tasks, trained, reference, targets)
    told = notes.general(trained, trials)
    return Board(suite, about, tasks + ranked(asked), told, contrasts(tasks), across, notes.brought(trained))


def _task(
    column: tuple[str, str],
    finals: Sequence[Record],
    trials: Sequence[Record],
    lines: list[Mapping[str, Any]],
    only: Sequence[str],
) -> TaskBoard:
    shared = gather.common(finals)
    metrics, goal = _metrics(finals, shared), shared.goal
    higher, name = bool(metrics.get("higher_is_better")), str(metrics.get("primary") or "")
    rows = [gather.row(a, own, shared) for a, own in gather.grouped(finals).items()]
    finals = [r for r in finals if not gather.is_external(r)]
    if goal is not None:
        name, higher, lines = f"{goal.meter} to {name} {goal.target:g}", False, []
    rows = _comparable(tuning.with_cost(rows, trials))
    scores = {row.architecture: dict(zip(row.seeds, row.scores, strict=True)) for row in rows if not row.reason}
    comparison = stats.compare(scores, higher_is_better=higher)
    hinges = stats.hinges(scores, higher_is_better=higher)
    rows = [_with(row, comparison.estimates.get(row.architecture)) for row in rows]
    if notes.machines(finals) > 1:
        rows = [_without_seconds(row) for row in rows]
    board = TaskBoard(
        task=column[0],
        metric=name,
        unit=str(metrics.get("unit") or "") if goal is None else goal.unit,
        higher_is_better=higher,
        rows=sorted(rows, key=lambda row: _place(row, higher)),
        baselines=_lines(lines, name, higher),
        chance=gather.finite(metrics.get("chance")) if goal is None else None,
        notes=[],
        mdd=comparison.smallest_difference,
        track=column[1],
        equal=notes.equal(finals, shared),
        only=[*only],
    )
    return dataclasses.replace(board, notes=notes.task(board, finals, trials, shared, comparison, hinges))


def _comparable(rows: list[Row]) -> list[Row]:
    """One seed beside rows of several has no scatter: it is not ranked, rather than tied with everybody."""
    most = max((len(row.seeds) for row in rows if not row.reason), default=0)
    reason = f"one seed only, where others have {most}"
    alone = [not row.reason and len(row.seeds) == 1 < most for row in rows]
    return [dataclasses.replace(row, reason=reason) if one else row for row, one in zip(rows, alone, strict=True)]


def _metrics(finals: Sequence[Record], shared: gather.Common) -> Mapping[str, Any]:
    """The metric most runs agree on; that of any run where there is none."""
    named = [r["metrics"] for r in finals if dig(r, "metrics.primary")]
    agreed = [m for m in named if m["primary"] == shared.terms["metric"]]
    return next(iter(agreed or named), {})


def _with(row: Row, estimate: stats.Estimate | None) -> Row:
    if estimate is None:
        return row
    return dataclasses.replace(
        row,
        mean=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        rank_low=estimate.rank_low,
        rank_high=estimate.rank_high,
        letters=estimate.letters,
    )


def _without_seconds(row: Row) -> Row:
    """For runs on different hardware, where no two seconds, nor ratios of them, can be compared."""
    blank = ("seconds", "tokens_per_s", "relative_speed", "reference_step_seconds", "tuning_seconds")
    nothing: dict[str, Any] = dict.fromkeys(blank)
    return dataclasses.replace(row, **nothing)


def _place(row: Row, higher: bool) -> tuple[int, float, str]:
    group = 0 if row.ranked else 3 if row.status == "unsupported" else 1 if row.status == "ok" else 2
    score = float("inf") if row.mean is None else -row.mean if higher else row.mean
    return group, score, row.architecture


def _lines(lines: list[Mapping[str, Any]], metric: str, higher: bool) -> list[Line]:
    found = {
        Line(str(b["name"]), float(b["value"]), str(b.get("about") or ""))
        for b in lines
        if b.get("metric", metric) == metric and gather.finite(b["value"]) is not None
    }
    return sorted(found, key=lambda b: (-b.value if higher else b.value, b.name))
