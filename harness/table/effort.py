"""Whether the rows of a table were tuned equally."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.records.record import Record
from harness.records.spec import TUNABLE
from harness.table.comparable import by_architecture, majority
from harness.table.rows import Row, finite


def compared(rows: Sequence[Row], trials: Sequence[Record]) -> list[Row]:
    """The rows, each that was tuned otherwise than most with the reason why it is not ranked."""
    if not trials:
        return list(rows)
    own, dims = by_architecture(trials), dimensions(trials)
    efforts = {row.architecture: _effort(own.get(row.architecture, []), dims) for row in rows}
    counted = [efforts[row.architecture] for row in rows if row.status == "ok"]
    usual = {term: majority(effort[term] for effort in counted) for term in _effort([], dims)}

    def reason(row: Row) -> str:
        unequal = "" if row.status == "unsupported" else _difference(efforts[row.architecture], usual)
        return "; ".join(filter(None, (row.reason, unequal)))

    return [row.replace(reason=reason(row)) for row in rows]


def dimensions(trials: Sequence[Record]) -> list[str]:
    """What was tuned: what differs between the trials of any one architecture; and always the learning rate."""
    groups = by_architecture(trials).values()
    return [name for name in TUNABLE if name == "lr" or any(len(tuned_values(own, name)) > 1 for own in groups)]


def space(trials: Sequence[Record], dims: Sequence[str]) -> dict[str, Any]:
    """Where one architecture's trials were searched for: its sampler's space, or the values of its grid."""
    sampled = next((dict(r.spec.tuning.space) for r in trials if r.spec.tuning is not None), None)
    return sampled or {name: tuned_values(trials, name) for name in dims}


def tuned_values(runs: Sequence[Record], name: str) -> list[float]:
    """The different values of something tunable, in trials or final runs."""
    return sorted({value for r in runs if (value := finite(r.spec.tuned(name))) is not None})


def _effort(trials: Sequence[Record], dims: Sequence[str]) -> dict[str, Any]:
    """What must be equal over the rows of a task."""
    return {
        "number of trials": len(trials),
        "space": json.dumps(space(trials, dims), sort_keys=True),
        "sampler": frozenset(r.spec.tuning and r.spec.tuning.sampler for r in trials),
        "length of trials": frozenset(r.spec.stop for r in trials),
        "split": frozenset(r.spec.evaluate.split for r in trials),
    }


def _difference(effort: Mapping[str, Any], usual: Mapping[str, list[Any]]) -> str:
    """Why a row's tuning does not compare with the others'; the first reason explains the rest."""
    for term, value in effort.items():
        if not usual[term]:
            return f"tuning differs and no majority agrees on the {term}"
        if value not in usual[term]:
            shown = f": {value}, others {usual[term][0]}" if term == "number of trials" else ""
            return f"tuning differs from the others' in the {term}{shown}"
    return ""
