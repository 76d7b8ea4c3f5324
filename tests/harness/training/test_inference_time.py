"""The time of a decoded token or of an answer: in turn with a reference, off the record of everything else."""

from dataclasses import replace

import pytest
import torch

import tasks
import zoo
from harness.training import inference_time as module
from harness.training.inference_time import ROUNDS, TIMED, inference_time

from ..made import do, make_spec, without_clock

CPU = torch.device("cpu")


def built(name, task, **options):
    return zoo.build(name, task.role, shape=replace(task.shape, width=16, depth=1), **options)


def measured(name, task):
    return inference_time(built(name, task), task, device=CPU, precision="fp32")


@pytest.mark.parametrize(("task", "method", "field"), [("mqar", "extend", "decode"), ("pixels", "forward", "latency")])
def test_by_the_clock(monkeypatch, task, method, field):
    """It takes the model 3 s and its reference 6 s; the first of a turn takes a minute, which is not counted."""
    task, now, turns = tasks.build(task), [0.0], []
    model = built("gru", task)
    compute = getattr(type(model), method)

    def slow(self, given, *state):
        if method == "forward" or given.shape[1] == 1:
            turns.append(self is model)
            first = len(turns) < 2 or turns[-2] != turns[-1]
            now[0] += 60 if first else 3 if self is model else 6
        return compute(self, given, *state)

    monkeypatch.setattr(type(model), method, slow)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    found = inference_time(model, task, device=CPU, precision="fp32")
    assert found == {f"{field}_seconds": 3.0, f"{field}_relative": 2.0}
    assert turns == ([True] * TIMED + [False] * TIMED) * ROUNDS


@pytest.mark.parametrize(("name", "options"), [("gru", {"length": 4, "pairs": 1, "vocab": 8}), ("pre_ln", {})])
def test_short_inputs_and_learned_positions_leave_room(name, options):
    found = measured(name, tasks.build("mqar", **options))
    assert found["decode_seconds"] > 0
    assert found["decode_relative"] > 0


@pytest.mark.parametrize(("name", "task"), [("reformer", "mqar"), ("pre_ln", "masked_text"), ("pre_ln", "reverse")])
def test_others_have_none(name, task):
    assert measured(name, tasks.build(task)) == {}


@pytest.mark.parametrize(("task", "field"), [("mqar", "decode"), ("pixels", "latency")])
def test_a_run_does_not_notice(tmp_path, monkeypatch, task, field):
    what = make_spec("gru", task=task, options={"depth": 1, "width": 16, "dropout": 0.2})
    beside = do(what, tmp_path / "beside")
    monkeypatch.setattr("harness.training.finish.inference_time", lambda *_, **__: {})
    alone = do(what, tmp_path / "alone")
    assert getattr(beside.speed, f"{field}_seconds") > 0
    assert getattr(alone.speed, f"{field}_seconds") is None
    assert without_clock(beside.curve) == without_clock(alone.curve)
    assert (beside.metrics, beside.data, beside.provenance.kernels) == (
        alone.metrics,
        alone.data,
        alone.provenance.kernels,
    )
