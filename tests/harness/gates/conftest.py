"""Short runs on a tiny task, and the gates they fail."""

from typing import Any

from harness.records.meters import StopRule
from harness.records.record import Record
from harness.records.spec import EvaluateSettings, RunSpec

from ..made import make_spec

MQAR = {"length": 16, "pairs": 3, "vocab": 16}


def spec(architecture: str, **changes: Any) -> RunSpec:
    """A run of 10 steps on `mqar` that is scored on more examples."""
    if changes.get("task", "mqar") == "mqar":
        changes.setdefault("task_options", MQAR)
    changes = {"stop": StopRule("steps", 10), "evaluate": EvaluateSettings(0.5, 64, 128)} | changes
    return make_spec(architecture, train={"batch_tokens": 64}, **changes)


def failed_gates(record: Record) -> set[str]:
    """The names of the gates that a run did not pass."""
    return {name for name, gate in record.eligibility.gates.items() if not gate.passed}
