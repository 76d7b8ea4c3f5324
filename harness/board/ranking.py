"""From records to a board: rows are made, ranked by their test scores, and annotated."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from harness import stats
from harness.board import aggregate, notes, questions
from harness.board.ladder import ladders
from harness.board.model import Baseline, Board, TaskBoard
from harness.board.tracks import contrasts
from harness.records.files import to_json
from harness.records.record import Record
from harness.records.seeds import SeedRule
from harness.table import rounds
from harness.table.comparable import Common, by_architecture, grouped, machines, vouched
from harness.table.compare import compare_runs, higher_is_better, metrics_of, rows_of, scores_of
from harness.table.rows import Row, finite

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
    seeds: SeedRule | None = None,
) -> Board:
    """Rank the final runs of a suite, each task in each track by itself: those in `order` first, the rest by name.

    Then over the tracks of a task, and over the tasks of a track. The order of the records never matters.

    Args:
        baselines: as in `baselines.json`: task_label, metric, name, value, about.
        reference, targets: see `harness.board.aggregate.make`.
        only: by task, the architectures that the suite runs on it.
        seeds: by which the suite adds them; None where they are fixed. Runs of a round that has not ended are left out.
    """
    ordered = unique(records)
    trials = [r for r in ordered if r.spec.kind == "trial"]
    tried, lines = grouped((table_of(r), r) for r in trials), grouped((b["task_label"], b) for b in baselines)
    finals = [r for r in ordered if r.spec.kind == "final"]
    progress = _progress(seeds, finals, tried) if seeds else {}
    finals = [r for r in finals if _in_rounds(r, seeds, progress)]
    trained = [r for r in finals if not r.spec.pretrained]
    position, rows = {key: index for index, key in enumerate(order)}, only or {}
    asked = questions.as_tasks(finals)
    labels = grouped((table_of(r), r.spec.architecture_label) for r in [*finals, *asked])
    pairs = sum(math.comb(len({*own}), 2) for own in labels.values())
    small = pairs <= MOST_PAIRS
    draws = stats.DRAWS if small or seeds else FEWER_DRAWS  # a look has a small level, which few draws do not reach
    method = _Method(seeds, draws, influences=small)

    def ranked(own: Sequence[Record], progress: Mapping[TableKey, rounds.Progress]) -> list[TaskBoard]:
        tables = grouped((table_of(r), r) for r in own)
        keys = sorted(tables, key=lambda key: (position.get(key, len(order)), key))
        return [
            _task(
                _Table(key, tables[key], tried.get(key, []), lines.get(key[0], []), [*rows.get(key[0], ())]),
                method,
                progress.get(key),
            )
            for key in keys
        ]

    tasks = ranked([r if r.lm_eval is None else r.replace(lm_eval=None) for r in finals], progress)
    return Board(
        suite=suite,
        about=about,
        tasks=tasks + ranked(asked, {}),
        notes=notes.general(trained, trials) + ([] if small else [notes.left_out(pairs, MOST_PAIRS, draws)]),
        contrasts=contrasts(tasks),
        ladders=ladders(tasks, trained, reference),
        across=aggregate.make(tasks, trained, reference, targets, all_pairs=small),
        defaults=notes.defaults(trained),
    )


def table_of(record: Record) -> TableKey:
    """The task and the track that a record is ranked in."""
    return record.spec.task_label, record.spec.track


def _progress(
    rule: SeedRule, finals: Sequence[Record], trials: Mapping[TableKey, Sequence[Record]]
) -> dict[TableKey, rounds.Progress]:
    """How far the rounds of each table are."""
    tables = grouped((table_of(r), r) for r in finals if not r.spec.pretrained)
    return {key: _follow(rule, runs, trials.get(key, ())) for key, runs in tables.items()}


def _follow(rule: SeedRule, runs: Sequence[Record], trials: Sequence[Record]) -> rounds.Progress:
    """The rounds of one table."""
    known = {(r.spec.architecture_label, r.spec.seed): r for r in reversed(runs)}
    compare = partial(compare_runs, trials=trials, rule=rule)
    return rounds.follow(rule, by_architecture(runs), lambda row, seed: known.get((row, seed)), compare)


def _in_rounds(record: Record, rule: SeedRule | None, progress: Mapping[TableKey, rounds.Progress]) -> bool:
    """Whether a final run is of a round that has ended, or of the first; any is where seeds are fixed."""
    if rule is None or record.spec.pretrained:
        return True
    return record.spec.seed < (progress[table_of(record)].has[record.spec.architecture_label] or rule.start)


def unique(records: Iterable[Record]) -> list[Record]:
    """Each run once, in an order that depends on nothing but what the records say."""
    by_id = grouped((record.run_id, record) for record in records)
    chosen = [own[0] if len(own) == 1 else min(own, key=to_json) for own in by_id.values()]
    return sorted(chosen, key=lambda r: (*table_of(r), r.spec.architecture_label, r.spec.seed, r.run_id))


@dataclass(frozen=True, slots=True)
class _Table:
    """What is known of one task in one track."""

    key: TableKey
    runs: list[Record]
    trials: list[Record]
    baselines: list[Mapping[str, Any]]
    only: list[str]


@dataclass(frozen=True, slots=True)
class _Method:
    """How the tables of a board are judged."""

    rule: SeedRule | None
    draws: int
    influences: bool
    """Whether each row is left out in turn."""


def _task(table: _Table, method: _Method, now: rounds.Progress | None) -> TaskBoard:
    """One table, ranked; `now` is how far its rounds are, if seeds are added."""
    runs, rule = table.runs, method.rule
    shared = Common(runs)
    metrics, goal, higher = metrics_of(runs, shared), shared.stop, higher_is_better(runs, shared)
    name, unit, chance = metrics.primary, metrics.unit, finite(metrics.chance)
    lines = _baselines(table.baselines, name, higher)
    if goal is not None and goal.target is not None:  # ranked by what was used to get there
        name, chance, lines = f"{goal.meter} to {name} {goal.target:g}", None, []
        unit = {"seconds": "s", "flops": "FLOP"}.get(goal.meter, "")
    rows = rows_of(runs, table.trials, shared)
    scores, level = scores_of(rows), stats.level_of(rule)
    comparison = stats.compare(
        scores, higher_is_better=higher, level=level, draws=method.draws, uneven=rule is not None
    )
    influences = stats.leave_one_out(scores, higher_is_better=higher, level=level) if method.influences else ()
    estimates = {name: asdict(estimate) for name, estimate in comparison.estimates.items()}
    rows = [row.replace(**estimates.get(row.architecture, {})) for row in rows]
    finals = [r for r in runs if not r.spec.pretrained]
    mixed, all_mixed = len(machines(finals)) > 1, len(machines(vouched(finals))) > 1
    rows = [row.without_times() if all_mixed or (mixed and row.origin == "reported") else row for row in rows]
    rows.sort(key=lambda row: _position(row, higher))
    board = TaskBoard(
        task=table.key[0], track=table.key[1], metric=name, unit=unit, higher_is_better=higher, rows=rows,
        baselines=lines, chance=chance, notes=[], mdd=comparison.smallest_difference,
        equal=notes.equal(finals, shared), only=table.only,
    )  # fmt: skip
    added = [rounds.note(rule, now)] if rule and now else []
    texts = notes.task(board, finals, table.trials, shared, comparison, influences, added)
    return replace(board, notes=texts)


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
