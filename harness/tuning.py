"""From trials to hyperparameters: the learning rate with the best score on the split the suite names."""

from __future__ import annotations

import math
from typing import Any

from harness.spec import RunSpec
from harness.store import Record


def choose(specs: list[RunSpec], records: list[Record]) -> list[RunSpec]:
    """The final runs with the learning rates their own trials chose.

    The rule, fixed beforehand: best value of the task's metric on the tuning split; a trial that did not end well loses
    to any that did; ties go to the smaller rate. A cell whose trials all failed keeps the smallest rate tried.
    """
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for record in records:
        spec = record["spec"]
        if spec["kind"] == "trial":
            cell = (spec["architecture_label"], spec["task_label"], spec.get("track", ""))
            found.setdefault(cell, []).append((_badness(record), spec["train"]["lr"]))
    return [
        spec.replace(train={**spec.train, "lr": min(found[spec.cell])[1]}) if spec.cell in found else spec
        for spec in specs
    ]


def _badness(record: Record) -> float:
    metrics: dict[str, Any] = record["metrics"]
    split = record["spec"]["evaluate"].get("split", "valid")
    value = metrics.get(split, {}).get(metrics["primary"])
    if record["status"] != "ok" or value is None:
        return math.inf
    return -value if metrics["higher_is_better"] else value
