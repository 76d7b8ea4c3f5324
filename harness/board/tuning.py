"""How the rows of one task were tuned: whether equally, at what cost, how near an edge, and what more would bring."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.board import gather
from harness.board.gather import Record, dig
from harness.board.model import Row, TaskBoard
from harness.records.spec import TUNABLE
from harness.stats.best import expected_best
from harness.units import clock, short

EDGE = 0.05
"""A value this near to an end of its range, as a fraction of the (logarithmic) range, counts as at its edge."""
WORDS = {"lr": "learning rate", "weight_decay": "weight decay"}


def with_cost(rows: Sequence[Row], trials: Sequence[Record]) -> list[Row]:
    """The rows with what tuning them cost, and the reason why one that was tuned otherwise than most is not ranked."""
    if not trials:
        return list(rows)
    own, dims = gather.grouped(trials), dimensions(trials)
    efforts = {row.architecture: _effort(own.get(row.architecture, []), dims) for row in rows}
    counted = [efforts[row.architecture] for row in rows if row.status == "ok"]
    usual = {term: gather.majority([effort[term] for effort in counted]) for term in next(iter(efforts.values()), {})}
    found = []
    for row in rows:
        made = own.get(row.architecture, [])
        reason = "" if row.status == "unsupported" else _difference(efforts[row.architecture], usual)
        found.append(
            dataclasses.replace(
                row,
                reason="; ".join(part for part in (row.reason, reason) if part),
                trials=len(made),
                tuning_flops=_sum(_run(made), "budget.used.flops"),
                tuning_seconds=_sum(_run(made), "budget.used.seconds") if _one_machine(made) else None,
            )
        )
    return found


def dimensions(trials: Sequence[Record]) -> list[str]:
    """What was tuned: what differs between the trials of any one architecture; and always the learning rate."""
    groups = gather.grouped(trials).values()
    return [name for name in TUNABLE if name == "lr" or any(len(_tried(own, name)) > 1 for own in groups)]


def space(trials: Sequence[Record], dims: Sequence[str]) -> dict[str, Any]:
    """Where one architecture's trials were looked for: what its sampler was told, or the values of its grid."""
    told = next((dict(s) for r in trials if (s := dig(r, "spec.tuning.space"))), None)
    return told or {name: _tried(trials, name) for name in dims}


def _tried(trials: Sequence[Record], name: str) -> list[float]:
    return sorted({value for r in trials if (value := value_of(r, name)) is not None})


def value_of(record: Record, name: str) -> float | None:
    """The value of one thing that may be tuned, in a trial or a final run."""
    return gather.finite(dig(record, f"spec.{TUNABLE[name]}.{name}"))


def _effort(trials: Sequence[Record], dims: Sequence[str]) -> dict[str, Any]:
    """What must be equal over the rows of a task."""

    def all_of(path: str) -> str:
        return " ".join(sorted({json.dumps(dig(r, path), sort_keys=True, default=str) for r in trials}))

    return {
        "number of trials": len(trials),
        "space": json.dumps(space(trials, dims), sort_keys=True),
        "sampler": all_of("spec.tuning.sampler"),
        "length of trials": all_of("spec.stop"),
        "split": all_of("spec.evaluate.split"),
    }


def _difference(effort: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """Why a row's tuning does not compare with the others'; the first reason explains the rest."""
    for term, value in effort.items():
        if usual[term] is None:
            return f"tuning differs and no majority agrees on the {term}"
        if value != usual[term]:
            shown = f": {value}, others {usual[term]}" if term == "number of trials" else ""
            return f"tuning differs from the others' in the {term}{shown}"
    return ""


def _run(trials: Sequence[Record]) -> list[Record]:
    """Trials that something was spent on."""
    return [r for r in trials if r.get("status") != "unsupported"]


def _sum(records: Sequence[Record], path: str) -> float | None:
    values = [v for r in records if (v := gather.finite(dig(r, path))) is not None]
    return math.fsum(values) if values else None


def _one_machine(trials: Sequence[Record]) -> bool:
    return len({dig(r, "provenance.hardware") for r in trials if r.get("status") == "ok"}) < 2


def notes(rows: Sequence[Row], finals: Sequence[Record], trials: Sequence[Record]) -> list[str]:
    """How many trials, where, what they cost, and which of the best values stand at an edge."""
    if not trials:
        return []
    ranked = [row for row in rows if row.ranked]
    found = []
    if counts := {row.trials for row in ranked}:
        splits = {str(dig(r, "spec.evaluate.split") or "valid") for r in trials}
        split = "the validation split" if splits == {"valid"} else f"the split {', '.join(sorted(splits))}"
        found.append(f"tuning: {max(c or 0 for c in counts)} trials per architecture, chosen on {split}")
    found += _searched(trials)
    made = _run(trials)
    failed = sum(r.get("status") != "ok" for r in made)
    flops, seconds = _sum(made, "budget.used.flops") or 0.0, _sum(made, "budget.used.seconds") or 0.0
    lost = f", {failed} of them failed" if failed else ""
    found.append(
        f"tuning cost: {len(made)} trials{lost}, {short(flops, 'FLOP')} and {clock(seconds)} of training in all"
    )
    return found + _edges(rows, finals, trials)


def _searched(trials: Sequence[Record]) -> list[str]:
    """The space of a sampler, or of a grid of more than learning rates, if all share it."""
    dims = dimensions(trials)
    spaces = {json.dumps(space(own, dims)) for own in gather.grouped(trials).values()}
    samplers = sorted({str(s) for r in trials if (s := dig(r, "spec.tuning.sampler"))})
    if len(spaces) > 1 or not (samplers or len(dims) > 1):
        return []
    told = json.loads(spaces.pop())
    return [f"searched by {', '.join(samplers) or 'grid'}: {'; '.join(f'{n} {_shown(v)}' for n, v in told.items())}"]


def _shown(values: Any) -> str:
    if isinstance(values, list):
        return ", ".join(f"{value:g}" for value in values)
    return f"{values['low']:g} to {values['high']:g}{' (log)' if values['log'] else ''}"


def _edges(rows: Sequence[Row], finals: Sequence[Record], trials: Sequence[Record]) -> list[str]:
    runs, own, dims = gather.grouped(finals), gather.grouped(trials), dimensions(trials)
    found: dict[tuple[str, str], list[str]] = {}
    for name in sorted(row.architecture for row in rows if row.scores):
        for dimension, values in space(own.get(name, []), dims).items():
            best = {value_of(r, dimension) for r in runs[name]}
            value = best.pop() if len(best) == 1 else None
            if value is not None and at_edge(value, values):
                kind = "grid" if isinstance(values, list) else "range"
                found.setdefault((dimension, kind), []).append(f"{name} {value:g}")
    return [
        f"best {WORDS.get(dimension, dimension)} at the edge of its {kind}: {', '.join(names)}"
        for (dimension, kind), names in found.items()
    ]


def at_edge(value: float, values: Any) -> bool:
    """Whether a value is an end of a list of at least two, or within `EDGE` of an end of a range."""
    if isinstance(values, list):
        return len(values) > 1 and value in (min(values), max(values))
    scale = math.log if values["log"] else float
    low, high = scale(values["low"]), scale(values["high"])
    return not EDGE < (scale(value) - low) / (high - low) < 1 - EDGE


def best_of(board: TaskBoard, trials: Sequence[Record]) -> dict[str, list[float]]:
    """By ranked architecture, the expected best score on the tuning split of 1, 2, … of its trials; from 3 trials on.

    A trial that failed counts as the worst any trial of the task scored.
    """
    ranked = {row.architecture for row in board.rows if row.ranked}
    judged = gather.grouped([r for r in trials if dig(r, "metrics.primary")])
    groups = {name: [_objective(r) for r in own] for name, own in judged.items() if name in ranked}
    scored = [value for own in groups.values() for value in own if math.isfinite(value)]
    if not scored:
        return {}
    sign, worst = -1.0 if board.higher_is_better else 1.0, max(scored)
    return {
        name: expected_best([sign * min(value, worst) for value in own], higher_is_better=board.higher_is_better)
        for name, own in groups.items()
        if len(own) >= 3
    }


def _objective(record: Record) -> float:
    value = dig(record, f"metrics.{dig(record, 'spec.evaluate.split') or 'valid'}.{dig(record, 'metrics.primary')}")
    if record["status"] != "ok" or gather.finite(value) is None:
        return math.inf
    return -value if dig(record, "metrics.higher_is_better") else value
