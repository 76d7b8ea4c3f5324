"""Every registered architecture, trained for some steps, passes every gate that its own traits let it pass."""

import math

import pytest

import zoo
from harness.records.checks import problems
from zoo.types import Unsupported

from ..made import do
from .conftest import failed_gates, spec

ROLES = {
    "lm": ({"task": "mqar", "task_options": {"length": 32, "pairs": 4, "vocab": 32}}, None),
    "seq2seq": ({"task": "reverse", "task_options": {"length": 8, "vocab": 8}}, ("pre_ln", "lstm")),
    "classify": ({"task": "pixels", "task_options": {"pool": 7}}, ("s4", "reformer")),
}
"""A task of each role, and which architectures are judged in it without --all; None for each there is."""


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_an_honest_architecture_passes(architecture, role, tmp_path, request):
    task, some = ROLES[role]
    if some and architecture not in some and not request.config.getoption("--all"):
        pytest.skip("in this role with --all only")
    multiple = zoo.recipe(architecture).width_multiple
    options = {"depth": 2, "width": multiple * math.ceil(16 / multiple)}
    try:
        record = do(spec(architecture, options=options, **task), tmp_path)
    except Unsupported:
        pytest.skip(f"cannot play {role}")
    expected = {"causal"} if architecture == "reformer" and role != "classify" else set()
    assert failed_gates(record) == expected, record.eligibility.gates
    assert record.eligibility.ranked is not bool(expected)
    assert [why for what, why in problems(record) if what == "gates"] == []
    assert len(record.eligibility.gates) == {"classify": 14}.get(role, 17)
