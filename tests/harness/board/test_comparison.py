"""Two rows beside each other: intervals, verdicts and costs by hand, on planted records."""

import math

import pytest

from harness import board
from harness.board import comparison
from tests.harness.board.conftest import by_name
from tests.harness.planted import change, plant


def compared(records, first="lstm", second="s4d"):
    return comparison.compare([board.make("quick", records, [])], first, second)


def test_by_hand(three):
    cheap = {"budget__used__flops": 1_200_000_000_000, "size__state_bytes": None}
    records = [change(r, **cheap) if r.spec.architecture == "lstm" else r for r in three]
    (task,) = (found := compared(records)).tasks
    rows = by_name(board.make("quick", records, []).tasks[0].rows)
    half = math.hypot(*((rows[name].high - rows[name].low) / 2 for name in ("lstm", "s4d")))
    assert task.difference == pytest.approx(-1)
    assert (task.low, task.high) == pytest.approx((-1 - half, -1 + half))
    assert (task.verdict, task.seeds) == ("better", [0, 1, 2])
    assert task.costs == {"compute": 0.5, "time": 1.0, "params": 1.0}
    assert found.verdict == "lstm is better than s4d on 1 of 1 task, worse on none; it costs 0.50× the compute"
    other = compared(records, "s4d", "lstm")
    assert (other.tasks[0].verdict, other.tasks[0].high) == ("worse", pytest.approx(1 + half))
    assert compared(records, "s4d", "pre_ln").tasks[0].verdict == "undecided"


def test_higher_is_better_turns_the_verdict_and_not_the_difference(three):
    (task,) = compared([change(r, metrics__higher_is_better=True) for r in three]).tasks
    assert (task.verdict, task.difference) == ("worse", pytest.approx(-1))


def test_what_cannot_be_compared_is_counted_and_says_why(three):
    def on(task, record):
        return change(record, spec__task=task, spec__task_label=task, run_id=f"{record.run_id}{task}")

    failed = [plant("lstm", s, status="diverged") for s in range(3)]
    second = [on("b", r) for r in [*failed, *three] if r.status != "ok" or r.spec.architecture != "lstm"]
    alone = [on("c", r) for r in three if r.spec.architecture != "lstm"]
    found = compared([*three, *second, *alone])
    assert [(one.task, one.verdict) for one in found.tasks] == [("b", "not compared"), ("text", "better")]
    assert "lstm: 3 of 3 seeds diverged" in found.tasks[0].note
    assert found.verdict.startswith("lstm is better than s4d on 1 of 2 tasks, worse on none; 1 not compared")
    machines = [change(r, provenance__hardware="H100") if r.spec.seed else r for r in three]
    assert "time" not in compared(machines).tasks[0].costs
    assert compared(three, "lstm", "nobody").verdict == "lstm and nobody have no task in common"


def test_costs_of_several_tasks_are_averaged_as_ratios(three):
    double = [change(r, spec__task="b", spec__task_label="b", run_id=r.run_id + "b") for r in three]
    factors = {"text": 4, "b": 1}
    records = [
        change(r, budget__used__flops=10**12 * factors[r.spec.task]) if r.spec.architecture == "lstm"
        else change(r, budget__used__flops=10**12)
        for r in [*three, *double]
    ]  # fmt: skip
    assert compared(records).verdict.endswith("it costs 2.00× the compute (geometric mean)")
