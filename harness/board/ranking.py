"""From records to a board: rows are made, ranked by their test scores, and annotated."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness import stats
from harness.board import aggregate, notes, questions, tuning
from harness.board.comparable import Common, by_architecture, grouped, machines, one_per_seed, reasons, vouched
from harness.board.model import Baseline, Board, TaskBoard
from harness.board.rows import Row, Runs, finite, row
from harness.board.tracks import contrasts
from harness.records.files import to_json
from harness.records.record import Metrics, Record

TableKey = tuple[str, str]
"""A task's label and a track, which are ranked by themselves."""
MOST_PAIRS, FEWER_DRAWS = 3000, 2000
"""How many pairs of rows the tables of a board may have together for all to be said that is said of small boards; and
from how many draws pairs are judged beyond."""


def make(
    suite: str,
    records: Iterable[Record],
    baselines: Iterable[Mapping[str, Any]],
    about: str = "",
    order: Sequence[TableKey] = (),
    reference: str = "",
    targets: Mapping[str, float] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
) -> Board:
    """Rank the final runs of a suite, each task in each track by itself: those in `order` first, the rest by name.

    Then over the tracks of a task, and over the tasks of a track. The order of the records never matters.

    Args:
        baselines: as in `baselines.json`: task_label, metric, name, value, about.
        reference, targets: see `harness.board.aggregate.make`.
        only: by task, the architectures that the suite runs on it.
    """
    ordered = unique(records)
    finals = [r for r in ordered if r.spec.kind == "final"]
    trials = [r for r in ordered if r.spec.kind == "trial"]
    trained = [r for r in finals if not r.spec.pretrained]
    tried, lines = grouped((table_of(r), r) for r in trials), grouped((b["task_label"], b) for b in baselines)
    position, rows = {key: index for index, key in enumerate(order)}, only or {}
    asked = questions.as_tasks(finals)
    labels = grouped((table_of(r), r.spec.architecture_label) for r in [*finals, *asked])
    pairs = sum(math.comb(len({*own}), 2) for own in labels.values())
    small = pairs <= MOST_PAIRS

    def ranked(own: Sequence[Record]) -> list[TaskBoard]:
        tables = grouped((table_of(r), r) for r in own)
        keys = sorted(tables, key=lambda key: (position.get(key, len(order)), key))
        return [
            _task(key, tables[key], tried.get(key, []), lines.get(key[0], []), [*rows.get(key[0], ())], small=small)
            for key in keys
        ]

    tasks = ranked([r if r.lm_eval is None else r.replace(lm_eval=None) for r in finals])
    return Board(
        suite=suite,
        about=about,
        tasks=tasks + ranked(asked),
        notes=notes.general(trained, trials) + ([] if small else [notes.left_out(pairs, MOST_PAIRS, FEWER_DRAWS)]),
        contrasts=contrasts(tasks),
        across=aggregate.make(tasks, trained, reference, targets, all_pairs=small),
        defaults=notes.defaults(trained),
    )


def table_of(record: Record) -> TableKey:
    """The task and the track that a record is ranked in."""
    return record.spec.task_label, record.spec.track


def unique(records: Iterable[Record]) -> list[Record]:
    """Each run once, in an order that depends on nothing but what the records say."""
    by_id = grouped((record.run_id, record) for record in records)
    chosen = [own[0] if len(own) == 1 else min(own, key=to_json) for own in by_id.values()]
    return sorted(chosen, key=lambda r: (*table_of(r), r.spec.architecture_label, r.spec.seed, r.run_id))


def _task(
    key: TableKey,
    runs: list[Record],
    trials: list[Record],
    baselines: list[Mapping[str, Any]],
    only: list[str],
    *,
    small: bool,
) -> TaskBoard:
    shared = Common(runs)
    metrics, goal = _metrics(runs, shared), shared.stop
    name, higher, unit, chance = metrics.primary, metrics.higher_is_better, metrics.unit, finite(metrics.chance)
    lines = _baselines(baselines, name, higher)
    if goal is not None and goal.target is not None:  # ranked by what was used to get there
        name, higher, chance, lines = f"{goal.meter} to {name} {goal.target:g}", False, None, []
        unit = {"seconds": "s", "flops": "FLOP"}.get(goal.meter, "")
    rows = _rows(runs, trials, shared)
    scores = {row.architecture: row.by_seed for row in rows if not row.reason}
    comparison = stats.compare(scores, higher_is_better=higher, draws=stats.DRAWS if small else FEWER_DRAWS)
    influences = stats.leave_one_out(scores, higher_is_better=higher) if small else ()
    estimates = {name: dataclasses.asdict(estimate) for name, estimate in comparison.estimates.items()}
    rows = [row.replace(**estimates.get(row.architecture, {})) for row in rows]
    finals = [r for r in runs if not r.spec.pretrained]
    mixed, all_mixed = len(machines(finals)) > 1, len(machines(vouched(finals))) > 1
    rows = [row.without_times() if all_mixed or (mixed and row.origin == "reported") else row for row in rows]
    rows.sort(key=lambda row: _position(row, higher))
    board = TaskBoard(
        task=key[0], track=key[1], metric=name, unit=unit, higher_is_better=higher, rows=rows, baselines=lines,
        chance=chance, notes=[], mdd=comparison.smallest_difference, equal=notes.equal(finals, shared), only=only,
    )  # fmt: skip
    texts = notes.task(board, finals, trials, shared, comparison, influences)
    return dataclasses.replace(board, notes=texts)


def _rows(runs: list[Record], trials: list[Record], shared: Common) -> list[Row]:
    """A row for each architecture, not yet ranked, with every reason why it may not be."""
    tried = by_architecture(trials)
    rows = [
        row(name, Runs(one_per_seed(own), tried.get(name, []) if trials else None), reasons(own, shared))
        for name, own in by_architecture(runs).items()
    ]
    rows = tuning.compared(rows, trials)
    most = max((len(row.seeds) for row in rows if not row.reason), default=0)
    # one seed beside rows of several has no scatter: it is not ranked, rather than tied with everybody
    reason = f"one seed only, where others have {most}"
    return [row.replace(reason=reason) if not row.reason and len(row.seeds) == 1 < most else row for row in rows]


def _metrics(finals: Sequence[Record], shared: Common) -> Metrics:
    """The metric most runs agree on; that of any run where there is none."""
    named = [r.metrics for r in finals if r.metrics.primary]
    agreed = [metrics for metrics in named if metrics.primary in shared.terms["metric"]]
    return next(iter(agreed or named), Metrics("", higher_is_better=False))


def _position(row: Row, higher: bool) -> tuple[int, float, str]:
    """Ranked rows first, then what ended well, then what failed, then what cannot be; each by its mean."""
    group = 0 if row.ranked else {"ok": 1, "unsupported": 3}.get(row.status, 2)
    score = float("inf") if row.mean is None else -row.mean if higher else row.mean
    return group, score, row.architecture


def _baselines(rows: list[Mapping[str, Any]], metric: str, higher: bool) -> list[Baseline]:
    """The baselines of this metric, best first."""
    found = {
        Baseline(str(b["name"]), float(b["value"]), str(b.get("about") or ""))
        for b in rows
        if b.get("metric", metric) == metric and finite(b["value"]) is not None
    }
    return sorted(found, key=lambda b: (-b.value if higher else b.value, b.name))
