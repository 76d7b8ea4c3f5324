"""What must be said beside a table so that it cannot be misread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from harness.board import gather, questions, tuning
from harness.board.gather import Record, dig
from harness.board.model import Line, Row, TaskBoard
from harness.gates.registry import applied, gates
from harness.records.record import Override
from harness.stats import Comparison, Hinge
from harness.training.overrides import describe
from harness.units import short


def general(finals: Sequence[Record], trials: Sequence[Record]) -> list[str]:
    """Notes that hold for the whole board."""
    found = []
    commits = sorted({str(c) for r in finals if (c := dig(r, "provenance.commit"))})
    if len(commits) > 1:
        found.append(f"the runs come from {len(commits)} commits: {', '.join(c[:9] for c in commits)}")
    if finals and not trials:
        found.append("hyperparameters were not tuned per architecture")
    return found + _defaults(finals)


def task(
    board: TaskBoard,
    finals: Sequence[Record],
    trials: Sequence[Record],
    shared: gather.Common,
    comparison: Comparison,
    hinges: Sequence[Hinge],
) -> list[str]:
    """Notes for one task, the most important first."""
    ranked = [row for row in board.rows if row.ranked]
    doubt = questions.doubt(finals)
    found = [_versus(board, ranked, line, doubt) for line in board.lines] if ranked else ["nothing could be ranked"]
    found += questions.notes(finals)
    found += _difference(board, ranked)
    found += comparison.notes
    found += _hinges(hinges)
    found += _identical_data(finals, shared)
    found += _machines(finals)
    found += _gates(ranked, finals)
    found += _rates(board.rows)
    return found + tuning.notes(board.rows, finals, trials)


def equal(finals: Sequence[Record], shared: gather.Common) -> str:
    """What all rows have in common: the size they are matched to, and what ends their runs."""
    match, stop = shared.agreed("size target"), shared.agreed("budget")
    return ", ".join(filter(None, [_size(match, finals), _end(stop)]))


def _size(match: Any, finals: Sequence[Record]) -> str:
    if isinstance(match, dict):
        within = f" (±{100 * match['tolerance']:.3g}%)"
        if "flops_per_token" in match:
            return f"{short(match['flops_per_token'])} FLOPs a training token{within}"
        if "state_bytes" in match:
            return f"{short(match['state_bytes'], 'B')} of recurrent state{within}"
        return f"{short(match['params'])} parameters{' without embeddings' * (match['count'] != 'total')}{within}"
    sizes = {(dig(r, "size.width"), dig(r, "size.depth")) for r in finals if r.get("size")}
    if len(sizes) == 1:
        width, depth = sizes.pop()
        return f"width {width} and depth {depth}, whatever that makes in parameters"
    return "no size"


_AMOUNTS = {
    "tokens": "{} training tokens",
    "steps": "{} steps",
    "flops": "{}FLOP of training",
    "seconds": "{} s of training",
}


def _end(stop: Any) -> str:
    goal = gather.goal_of(stop)
    if not isinstance(stop, dict):
        return ""
    meter = next(name for name in stop if name != "target")
    amount = _AMOUNTS[meter].format(short(stop[meter]))
    return amount if goal is None else f"until valid reaches {goal.target:g}, at most {amount}"


def machines(finals: Sequence[Record]) -> int:
    """How many kinds of hardware (with threads and precision) the scored runs come from."""
    return len({gather.machine_of(r) for r in _scored(finals)})


def _scored(finals: Sequence[Record]) -> list[Record]:
    return [r for r in finals if gather.score_of(r) is not None]


def _versus(board: TaskBoard, ranked: Sequence[Row], line: Line, doubt: float = 0.0) -> str:
    """A baseline is beaten when every seed beats it and the whole interval lies on the better side.

    The interval is wider by what the choice of questions leaves open, where `doubt` is its standard error.
    """
    groups: dict[str, list[str]] = {"beat": [], "cannot tell": [], "do not": []}
    for row in ranked:
        ends = [board.key(v) for v in (*row.scores, *_widened(row, doubt)) if v is not None]
        limit = board.key(line.value)
        verdict = "beat" if max(ends) < limit else "do not" if min(ends) >= limit else "cannot tell"
        groups[verdict].append(row.architecture)
    beaten = groups.pop("beat")
    told = [f"beat {line.name} ({line.value:.3f}): {_all(beaten, len(ranked))}"]
    told += [f"{verdict}: {_all(names, len(ranked))}" for verdict, names in groups.items() if names]
    return "; ".join(told)


def _widened(row: Row, doubt: float) -> tuple[float | None, float | None]:
    """The ends of a row's 95% interval, with another independent standard error in it."""
    if not doubt or row.mean is None:
        return row.low, row.high
    half = math.hypot(row.mean - row.low if row.low is not None else 0.0, 1.96 * doubt)
    return row.mean - half, row.mean + half


def _all(names: Sequence[str], total: int) -> str:
    if not names:
        return "none"
    return f"all {total}" if len(names) == total > 2 else ", ".join(names)


def _difference(board: TaskBoard, ranked: Sequence[Row]) -> list[str]:
    if board.mdd is None:
        return []
    seeds = min(len(row.seeds) for row in ranked if len(row.seeds) > 1)
    unit = f" {board.unit}" if board.unit else ""
    shown = f"{board.mdd:.3f}" if board.mdd >= 0.001 else f"{board.mdd:.2g}"
    share = board.higher_is_better and not unit and all(0 <= score <= 1 for row in ranked for score in row.scores)
    more = ", which is more than any two rows can differ by" if share and board.mdd > 1 else ""
    return [f"smallest difference separated with 80% power at {seeds} seeds: {shown}{unit}{more}"]


def _hinges(hinges: Sequence[Hinge]) -> list[str]:
    """Relations of two that depend on a third, three spelled out and the rest counted."""
    told = []
    for pairs, verb in (("apart_without", "separated"), ("tied_without", "tied")):
        without: dict[str, list[str]] = {}
        for hinge in hinges:
            for pair in getattr(hinge, pairs):
                without.setdefault("–".join(pair), []).append(hinge.architecture)
        told += [f"{pair} would be {verb} without {' or '.join(names)}" for pair, names in sorted(without.items())]
    if not told:
        return []
    more = f", and {len(told) - 3} more pairs" if len(told) > 4 else ""
    return [f"depends on who else is on the board: {'; '.join(told[:3] if more else told)}{more}"]


def _identical_data(finals: Sequence[Record], shared: gather.Common) -> list[str]:
    done = [r for r in finals if r.get("status") == "ok"]
    if not done:
        return []

    def apart(record: Record) -> bool:
        seed = gather.seed_of(record)
        return gather.stream_at(record, shared.upto[seed]) != shared.hashes[seed]

    odd = sorted({gather.name_of(r) for r in done if apart(r)})
    if odd:
        return [f"data not identical: {', '.join(odd)} stand apart by their stream hash and are not ranked"]
    counts = [len({gather.name_of(r) for r in done if gather.seed_of(r) == s}) for s in shared.hashes]
    if max(counts) < 2:
        return ["only one architecture per seed: nothing to compare its data with"]
    count = str(counts[0]) if len({*counts}) == 1 else f"{min(counts)} to {max(counts)}"
    seeds = f"each of {len(counts)} seeds" if len(counts) > 1 else "one seed"
    return [f"identical data: stream hash equal over {count} architectures for {seeds}"]


def _machines(finals: Sequence[Record]) -> list[str]:
    done = _scored(finals)
    kinds = sorted({gather.machine_of(r) for r in done})
    if len(kinds) < 2:
        return _drift(done)
    each = "; ".join(f"{hardware}, threads: {threads}, {precision}" for hardware, threads, precision in kinds)
    what = gather.differing(kinds)
    verb = "differ" if " and " in what else "differs"
    return [f"{what} {verb}, so speeds are not compared, nor ratios to the reference: {each}"]


DRIFT, ODD = 0.10, 0.15
"""How far the reference's speed may differ over the runs of a table, and from its median beside one run of a table in
seconds, before it is said."""


def _drift(done: Sequence[Record]) -> list[str]:
    """What the reference says of a machine that was not the same for all runs."""
    timed = [(r, step) for r in done if (step := gather.finite(dig(r, "speed.reference.step_seconds")))]
    steps = [step for _, step in timed]
    if not timed or max(steps) <= (1 + DRIFT) * min(steps):
        return _without(done)
    span = f"{1e3 * min(steps):.3g} and {1e3 * max(steps):.3g} ms"
    found = [f"the machine drifted: the reference's step took between {span}; the ratios (× ref) are the ones to read"]
    if any(gather.by_seconds(r) for r, _ in timed):
        middle = statistics.median(steps)
        off = sorted(((step / middle - 1, r) for r, step in timed), key=lambda pair: -abs(pair[0]))
        odd = [pair for pair in off if abs(pair[0]) > ODD] or off[:1]
        told = [f"{gather.name_of(r)} seed {gather.seed_of(r)} (its step {by:+.0%})" for by, r in odd]
        found.append(
            f"equal seconds were not equal work: the reference was furthest off its median beside {', '.join(told)}"
        )
    return found


def _without(done: Sequence[Record]) -> list[str]:
    problems = sorted({str(p) for r in done if (p := dig(r, "speed.reference.problem"))})
    return [f"speeds without a reference: {problem}" for problem in problems]


def _gates(ranked: Sequence[Row], finals: Sequence[Record]) -> list[str]:
    """Ranked rows that some gates were not asked of: because the suite skips them, or the records are older."""
    names = {row.architecture for row in ranked}
    skipped: dict[str, set[str]] = {}
    older: dict[str, set[str]] = {}
    for record in finals:
        name = gather.name_of(record)
        if name not in names or record.get("status") != "ok":
            continue
        left_out = [str(gate) for gate in dig(record, "eligibility.skipped") or ()]
        asked = {*(dig(record, "eligibility.gates") or {}), *left_out}
        due = applied(dig(record, "spec.role"), matched=dig(record, "size.mismatch") is not None)
        for gate in left_out:
            skipped.setdefault(gate, set()).add(name)
        for gate in due:
            if gate not in asked:
                older.setdefault(gate, set()).add(name)
    told = [f"gates skipped: {_by_rows(skipped, len(names))}"] if skipped else []
    return told + ([f"not judged by {_by_rows(older, len(names))}: older records"] if older else [])


def _by_rows(rows: dict[str, set[str]], total: int) -> str:
    """Like "causal, untrained (pre_ln, lstm)"; without names where it is all rows."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for gate in gates():
        if gate in rows:
            groups.setdefault(tuple(sorted(rows[gate])), []).append(gate)
    parts = [", ".join(g) + ("" if len(who) == total else f" ({', '.join(who)})") for who, g in groups.items()]
    return "; ".join(parts)


def _rates(rows: Sequence[Row]) -> list[str]:
    """Which learning rate each row was trained with, where they differ."""
    known = {row.architecture: row.lr for row in rows if row.lr is not None and row.scores}
    if len(rates := sorted({*known.values()})) < 2:
        return []
    users = {lr: ", ".join(sorted(a for a in known if known[a] == lr)) for lr in rates}
    return ["learning rates: " + "; ".join(f"{lr:g} {names}" for lr, names in users.items())]


def brought(finals: Sequence[Record]) -> dict[str, list[str]]:
    """What each architecture brought along; records from before it was noted say nothing."""
    found = {}
    for name, runs in gather.grouped(finals).items():
        own = next((known for r in runs if (known := r.get("defaults")) is not None), None)
        if own is not None:
            found[name] = [describe(Override.from_dict(one)) for one in own]
    return found


def _defaults(finals: Sequence[Record]) -> list[str]:
    counts = ", ".join(f"{name} {len(own)}" for name, own in brought(finals).items())
    return [f"defaults of their own, not set by the suite, and listed on the page: {counts}"] if counts else []
