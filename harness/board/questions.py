"""Answers to lm-evaluation-harness as columns of a board: each of its tasks is ranked as a task of the suite is.

A question's score has two sources of doubt. How training went is in the seeds, by which rows are compared as
everywhere; which questions were asked is the same for all rows, and its standard error is told beside the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.board.gather import Record, dig, task_of

PRIMARY = ("acc", "exact_match", "bits_per_byte", "acc_norm", "perplexity", "word_perplexity", "byte_perplexity")
"""What a task is ranked by: the first of these that it has, else its first metric."""


def columns(finals: Sequence[Record]) -> list[Record]:
    """For every answer in these records, the record as if it were of a task by the name of the question.

    Where models of several tasks were asked, the name says which task they were trained on.
    """
    asked = [record for record in finals if record.get("lm_eval")]
    several = len({task_of(record) for record in asked}) > 1
    found = [_as_task(record, name, several) for record in asked for name in dig(record, "lm_eval.tasks")]
    return found + [
        _refused(record, name, why, several)
        for record in asked
        for name, why in (dig(record, "lm_eval.refused") or {}).items()
    ]


def _as_task(record: Record, name: str, several: bool) -> Record:
    answer: Mapping[str, Any] = record["lm_eval"]["tasks"][name]
    metrics = answer["metrics"]
    primary = next((metric for metric in PRIMARY if metric in metrics), next(iter(metrics), ""))
    return {
        **_named(record, name, several),
        "data": {**record["data"], "fingerprint": f"{answer['hash']} {answer['samples']} {answer['fewshot']}"},
        "metrics": {
            "primary": primary,
            "also": [metric for metric in metrics if metric != primary],
            "higher_is_better": metrics.get(primary, {}).get("higher_is_better", True),
            "chance": metrics.get(primary, {}).get("chance"),
            "unit": "bits/byte" if primary == "bits_per_byte" else "",
            "valid": {},
            "test": {metric: told["value"] for metric, told in metrics.items()},
            "question": {"samples": answer["samples"], "stderr": metrics.get(primary, {}).get("stderr")},
        },
    }


def _refused(record: Record, name: str, why: str, several: bool) -> Record:
    """A model that could not be asked, as a row that says why."""
    error = {"kind": "Unsupported", "message": why, "where": ""}
    return {**_named(record, name, several), "status": "unsupported", "metrics": {"question": {}}, "error": error}


def _named(record: Record, name: str, several: bool) -> dict[str, Any]:
    spec, label = record["spec"], f"{name} after {task_of(record)}" if several else name
    return {
        **record,
        "run_id": f"{record['run_id']}/{name}",
        "spec": {**spec, "task": name, "task_label": label, "stop": _without_target(spec.get("stop"))},
        "lm_eval": None,
    }


def _without_target(stop: Any) -> Any:
    """What ended a run; that it was to reach a score in training says nothing about its answers."""
    return {k: v for k, v in stop.items() if k != "target"} if isinstance(stop, Mapping) else stop


def notes(finals: Sequence[Record]) -> list[str]:
    """How many questions were asked, and the largest standard error that their choice leaves."""
    asked = [record["metrics"]["question"] for record in finals if dig(record, "metrics.question.samples")]
    if not asked:
        return []
    samples, error = asked[0]["samples"], doubt(finals)
    told = f"; which ones they are leaves each score a standard error of up to {error:.2g}" if error else ""
    return [f"{samples:,} questions of lm-evaluation-harness, the same for all rows{told}"]


def doubt(finals: Sequence[Record]) -> float:
    """The largest standard error that the choice of questions leaves a score; 0 where none is known.

    Rows share their questions, so it is no part of what tells them apart; but it is of what tells them from chance.
    """
    errors = (dig(record, "metrics.question.stderr") for record in finals)
    return max((error for error in errors if error is not None), default=0.0)
