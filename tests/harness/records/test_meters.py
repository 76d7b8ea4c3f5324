"""When a run ends, and the learning rate along the way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.meters import Meters, StopRule
from harness.training.schedule import schedule
from zoo.types import SCHEDULES


def run(rule, step):
    """Use up the budget in steps of one cost."""
    used = Meters()
    while not rule.done(used, step):
        used.tokens, used.steps = used.tokens + step.tokens, used.steps + step.steps
        used.flops, used.seconds = used.flops + step.flops, used.seconds + step.seconds
    return used


@given(st.sampled_from(["tokens", "steps", "flops"]), st.integers(1, 500), st.integers(1, 5000))
def test_no_limit_is_exceeded_nor_a_step_left_out(meter, cost, limit):
    step = Meters(tokens=cost, steps=1, flops=cost, seconds=0.1)
    cost = getattr(step, meter)
    used = run(StopRule(meter, limit), step)
    if cost <= limit:
        assert limit - cost < getattr(used, meter) <= limit
    else:
        assert used.steps == 1, "one step is the least a run can do"


def test_seconds_end_with_the_step_they_fall_in_and_progress_with_one():
    step = Meters(tokens=1, steps=1, flops=1, seconds=0.25)
    assert run(StopRule("seconds", 1.1), step).steps == 5
    rule = StopRule("tokens", 100)
    assert [rule.progress(Meters(tokens=n)) for n in (0, 25, 100, 130)] == [0.0, 0.25, 1.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "rates"),
    [  # half of the way down is 0.1 + 0.9/2, a quarter cos 45°; four times the warm-up is 1/√4
        ("cosine", {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.55: 0.55, 0.325: 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 1.0: 0.1}),
        ("linear", {0.05: 0.5, 0.1: 1.0, 0.55: 0.55, 0.325: 0.775, 1.0: 0.1}),
        ("inverse_sqrt", {0.05: 0.5, 0.1: 1.0, 0.4: 0.5, 1.0: math.sqrt(0.1)}),
        ("constant", {0.05: 0.5, 0.7: 1.0, 1.0: 1.0}),
    ],
)
def test_the_shape_of_each_schedule_by_hand(kind, rates):
    assert {at: schedule(kind, at, warmup=0.1, final=0.1) for at in rates} == pytest.approx(rates)
    assert schedule(kind, 0.0, warmup=0.0, final=0.1) == 1.0, "without a warm-up it starts at the peak"


@given(st.sampled_from(SCHEDULES), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_rate_is_never_negative_nor_above_its_peak(kind, progress, warmup, final):
    assert -1e-9 <= schedule(kind, progress, warmup=warmup, final=final) <= 1 + 1e-9
