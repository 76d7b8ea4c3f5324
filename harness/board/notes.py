"""Notes beside a table, without which it could be misread."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from harness.board import questions, tuning
from harness.board.model import Baseline, TaskBoard
from harness.records.checks import GATES, gates_for
from harness.records.meters import StopRule
from harness.records.record import Record
from harness.records.spec import MatchRule
from harness.stats import Comparison, Influence
from harness.table.comparable import Common, Machine, by_architecture, grouped, machines, vouched
from harness.table.rows import Row
from harness.training.overrides import describe
from harness.units import short
from zoo.types import Role

LISTED = 100
"""Notes name as many rows."""


def _listed(names: Sequence[str]) -> str:
    """The names, of very many the first."""
    more = len(names) - LISTED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:LISTED])} and {more} more"


def general(finals: Sequence[Record], trials: Sequence[Record]) -> list[str]:
    """Notes that hold for the whole board."""
    found = []
    commits = sorted({commit for r in finals if (commit := r.provenance.commit)})
    if len(commits) > 1:
        found.append(f"the runs come from {len(commits)} commits: {', '.join(commit[:9] for commit in commits)}")
    origins = {(r.spec.architecture_label, r.origin.contributor, r.origin.kind): None for r in finals}
    if listed := _listed([f"{name} by {who} ({kind})" for name, who, kind in origins if kind != "made here"]):
        found.append(f"made by others: {listed}")
    if finals and not trials:
        found.append("hyperparameters were not tuned per architecture")
    if counts := _listed([f"{name} {len(own)}" for name, own in defaults(finals).items()]):
        found.append(f"defaults of their own, not set by the suite, and listed on its page of the site: {counts}")
    return found


def left_out(pairs: int, most: int, draws: int) -> str:
    """What a board says less of than smaller ones do."""
    return (
        f"a large board, with {pairs:,} pairs of rows, over {most:,}: pairs are judged from {draws:,} draws; whether "
        "ties depend on who else is on the board is not asked; the probability of improvement is against one row only"
    )


def defaults(finals: Sequence[Record]) -> dict[str, list[str]]:
    """The settings of its own of each architecture; older records do not list them."""
    runs = by_architecture(finals)
    known = {name: next((r.defaults for r in own if r.defaults is not None), None) for name, own in runs.items()}
    return {name: list(map(describe, own)) for name, own in known.items() if own is not None}


def task(
    board: TaskBoard,
    finals: Sequence[Record],
    trials: Sequence[Record],
    shared: Common,
    comparison: Comparison,
    influences: Sequence[Influence],
    added: Sequence[str],
) -> list[str]:
    """Notes for one task, the most important first; `added` are those on its seeds, if a rule adds them."""
    error = questions.standard_error(finals)
    return [
        *([_versus(board, line, error) for line in board.lines] if board.ranked else ["nothing could be ranked"]),
        *questions.notes(finals),
        *_detectable(board),
        *added,
        *comparison.notes,
        *_influences(influences),
        *_identical_data(finals, shared),
        *_machines(vouched(finals)),
        *_gates(board, finals),
        *_rates(board.rows),
        *tuning.notes(board.rows, finals, trials),
    ]


def equal(finals: Sequence[Record], shared: Common) -> str:
    """What all rows have in common: the size they are matched to, and what ends their runs."""
    size = _target(shared.match) if shared.match else _size(finals)
    return f"{size}, {_end(shared.stop)}" if shared.stop else size


COUNTED = {"total": "", "non_embedding": " without embeddings", "active": " in use at one step, without embeddings"}


def _target(match: MatchRule) -> str:
    what = {
        "params": " parameters" + COUNTED[match.count],
        "flops_per_token": " FLOPs a training token",
        "state_bytes": "B of recurrent state",
    }[match.meter]
    return f"{short(match.target)}{what} (±{100 * match.tolerance:.3g}%)"


def _size(finals: Sequence[Record]) -> str:
    sizes = {(r.size.width, r.size.depth) for r in finals if r.size is not None}
    if len(sizes) != 1:
        return "no size"
    width, depth = sizes.pop()
    return f"width {width} and depth {depth}, whatever that makes in parameters"


def _end(stop: StopRule) -> str:
    what = {"tokens": " training tokens", "steps": " steps", "flops": "FLOP of training", "seconds": " s of training"}
    amount = short(stop.limit) + what[stop.meter]
    return amount if stop.target is None else f"until valid reaches {stop.target:g}, at most {amount}"


def _versus(board: TaskBoard, line: Baseline, standard_error: float) -> str:
    """A baseline is beaten when every seed beats it and the whole interval lies on the better side; never by one seed.

    The interval is wider where the choice of questions has a standard error.
    """
    groups: dict[str, list[str]] = {f"beat {line.name} ({line.value:.3f})": [], "cannot tell": [], "do not": []}
    beat, unsure, worse = groups.values()
    for row in board.ranked:
        ends = [board.cost(v) for v in (*row.scores, *_widened(row, standard_error)) if v is not None]
        limit = board.cost(line.value)
        beats = max(ends) < limit and row.low is not None
        (beat if beats else worse if min(ends) >= limit else unsure).append(row.architecture)
    total = len(board.ranked)
    return "; ".join(
        f"{verdict}: {f'all {total}' if len(names) == total > 2 else _listed(names) or 'none'}"
        for verdict, names in groups.items()
        if names or names is beat
    )


def _widened(row: Row, standard_error: float) -> tuple[float | None, float | None]:
    """The ends of a row's 95% interval, with another independent standard error in it."""
    if not standard_error or row.mean is None:
        return row.low, row.high
    half = math.hypot(row.mean - row.low if row.low is not None else 0.0, 1.96 * standard_error)
    return row.mean - half, row.mean + half


def _detectable(board: TaskBoard) -> list[str]:
    """The smallest difference the table could have shown."""
    if board.mdd is None:
        return []
    seeds = min(len(row.seeds) for row in board.ranked if len(row.seeds) > 1)
    unit = f" {board.unit}" if board.unit else ""
    shown = f"{board.mdd:.3f}" if board.mdd >= 0.001 else f"{board.mdd:.2g}"
    return [f"smallest difference separated with 80% power at {seeds} seeds: {shown}{unit}"]


def _influences(influences: Sequence[Influence]) -> list[str]:
    """Relations of two that depend on a third, three spelled out and the rest counted."""
    found = []
    for verb in ("separated", "tied"):
        pairs = [(pair, i.architecture) for i in influences for pair in getattr(i, f"{verb}_without")]
        without = grouped(("–".join(pair), name) for pair, name in pairs)
        found += [f"{pair} would be {verb} without {' or '.join(names)}" for pair, names in sorted(without.items())]
    if not found:
        return []
    more = f", and {len(found) - 3} more pairs" if len(found) > 4 else ""
    return [f"depends on who else is on the board: {'; '.join(found[:3] if more else found)}{more}"]


def _identical_data(finals: Sequence[Record], shared: Common) -> list[str]:
    done = [r for r in finals if r.status == "ok"]
    if not done:
        return []
    if odd := sorted({r.spec.architecture_label for r in done if not shared.same_data(r)}):
        return [f"data not identical: {_listed(odd)} differ from the others in their stream hash and are not ranked"]
    counts = Counter(seed for seed, _ in {(r.spec.seed, r.spec.architecture_label) for r in done}).values()
    if max(counts) < 2:
        return ["only one architecture per seed: nothing to compare its data with"]
    count = " to ".join(map(str, sorted({min(counts), max(counts)})))
    seeds = f"each of {len(counts)} seeds" if len(counts) > 1 else "one seed"
    return [f"identical data: stream hash equal over {count} architectures for {seeds}"]


def _machines(finals: Sequence[Record]) -> list[str]:
    kinds = machines(finals)
    if len(kinds) < 2:
        return _drift([r for r in finals if r.score is not None])
    each = "; ".join(f"{one.hardware}, threads: {one.threads}, {one.precision}" for one in kinds)
    what = Machine.differences(kinds)
    verb = "differ" if " and " in what else "differs"
    return [f"{what} {verb}, so speeds are not compared, nor ratios to the reference: {each}"]


DRIFT, ODD = 0.10, 0.15
"""How far the reference's speed may differ over the runs of a table, and from its median beside one run of a table in
seconds, before a note says so."""


def _drift(scored: Sequence[Record]) -> list[str]:
    """How far the machine's speed drifted between runs, as the reference model measured it."""
    timed = [(r, step) for r in scored if (ref := r.speed.reference) is not None and (step := ref.step_seconds)]
    steps = [step for _, step in timed]
    if not timed or max(steps) <= (1 + DRIFT) * min(steps):
        problems = sorted({ref.problem for r in scored if (ref := r.speed.reference) is not None and ref.problem})
        return [f"speeds without a reference: {problem}" for problem in problems]
    span = f"{1e3 * min(steps):.3g} and {1e3 * max(steps):.3g} ms"
    found = [f"the machine drifted: the reference's step took between {span}; the ratios (× ref) are the ones to read"]
    if any(r.spec.stop is not None and r.spec.stop.meter == "seconds" for r, _ in timed):
        middle = statistics.median(steps)
        off = sorted(((step / middle - 1, r.spec) for r, step in timed), key=lambda pair: -abs(pair[0]))
        odd = [pair for pair in off if abs(pair[0]) > ODD] or off[:1]
        runs = ", ".join(f"{spec.architecture_label} seed {spec.seed} (its step {by:+.0%})" for by, spec in odd)
        found.append(f"equal seconds were not equal work: the reference was furthest off its median beside {runs}")
    return found


def _gates(board: TaskBoard, finals: Sequence[Record]) -> list[str]:
    """Ranked rows that did not go through every gate: the suite skips some, or the records are older than them."""
    names = {row.architecture for row in board.ranked}
    done = [r for r in finals if r.status == "ok" and r.spec.architecture_label in names]
    judged = {(r.spec.architecture_label, *_judged(r)) for r in done}  # as good as equal for all seeds of a row

    def listed(lacking: Iterable[tuple[str, str]]) -> str:
        """Like "causal, untrained (pre_ln, lstm)" of (gate, row); without names where it is all rows."""
        rows = grouped(lacking)
        groups = grouped((tuple(sorted({*rows[gate]})), gate) for gate in GATES if gate in rows)
        every = tuple(sorted(names))
        return "; ".join(", ".join(own) + (f" ({_listed(who)})" if who != every else "") for who, own in groups.items())

    skipped = listed((gate, name) for name, *_, left_out in judged for gate in left_out)
    older = listed((gate, name) for name, role, matched, passed, left_out in judged
                   for gate in gates_for(role, matched=matched) - {*passed, *left_out})  # fmt: skip
    found = [f"gates skipped: {skipped}"] if skipped else []
    return found + ([f"not judged by {older}: older records"] if older else [])


def _judged(record: Record) -> tuple[Role, bool, tuple[str, ...], tuple[str, ...]]:
    """What decides which gates a record should have: its role, whether its size is matched; and those it has or left
    out."""
    known, size = record.eligibility, record.size
    return record.spec.role, size is not None and size.mismatch is not None, (*known.gates,), known.skipped


def _rates(rows: Sequence[Row]) -> list[str]:
    """The learning rate each row was trained with, where they differ."""
    users = grouped((row.lr, row.architecture) for row in rows if row.lr is not None and row.scores)
    if len(users) < 2:
        return []
    return ["learning rates: " + "; ".join(f"{lr:g} {_listed(sorted(users[lr]))}" for lr in sorted(users))]
