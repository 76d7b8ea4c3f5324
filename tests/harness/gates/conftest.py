"""Plug-ins trained for some steps on a tiny task, and the gates they fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import zoo
from harness.records.meters import StopRule
from harness.records.record import Record
from harness.records.spec import EvaluateSettings, RunSpec

from ..made import do, make_spec

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


@pytest.fixture
def failed(tmp_path) -> Callable[..., set[str]]:
    """Trains a mixer (or what is registered under a name) and says which gates it fails."""

    def judge(mixer: Any, **changes: Any) -> set[str]:
        name = mixer
        if not isinstance(mixer, str):
            name = mixer.__name__.lower()
            zoo.register(name)(mixer)
        record = do(spec(name, **changes), tmp_path)
        assert record.status == "ok", record.error
        judge.gates = record.eligibility.gates
        found = failed_gates(record)
        assert record.eligibility.ranked is not bool(found)
        return found

    return judge
