"""The time of a decoded token: in turn with a reference, off the record of everything else."""

import pytest
import torch

import tasks
import zoo
from harness.training import decode_time as module
from harness.training.decode_time import ROUNDS, TOKENS, decode_time

from ..made import do, make_spec, without_clock

CPU = torch.device("cpu")


def built(name, task, **options):
    shape = zoo.Shape(task.shape.length, task.shape.outputs, vocab=task.shape.vocab, width=16, depth=1)
    return zoo.build(name, "lm", shape=shape, **options)


def test_by_the_clock(monkeypatch):
    """A token takes the model 3 s and its reference 6 s; the first of a turn takes a minute, which is not counted."""
    task, now, turns = tasks.build("mqar"), [0.0], []
    model = built("gru", task)
    extend = type(model).extend

    def slow(self, tokens, state):
        if tokens.shape[1] == 1:
            turns.append(self is model)
            first = len(turns) < 2 or turns[-2] != turns[-1]
            now[0] += 60 if first else 3 if self is model else 6
        return extend(self, tokens, state)

    monkeypatch.setattr(type(model), "extend", slow)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    assert decode_time(model, task, device=CPU, precision="fp32") == (3.0, 2.0)
    assert turns == ([True] * TOKENS + [False] * TOKENS) * ROUNDS


@pytest.mark.parametrize(("name", "options"), [("gru", {"length": 4, "pairs": 1, "vocab": 8}), ("pre_ln", {})])
def test_short_inputs_and_learned_positions_leave_room(name, options):
    task = tasks.build("mqar", **options)
    seconds, relative = decode_time(built(name, task), task, device=CPU, precision="fp32")
    assert seconds > 0
    assert relative > 0


def test_what_decodes_nothing_has_none():
    task = tasks.build("mqar")
    assert decode_time(built("reformer", task), task, device=CPU, precision="fp32") is None


def test_a_run_does_not_notice(tmp_path, monkeypatch):
    what = make_spec("gru", options={"depth": 1, "width": 16, "dropout": 0.2})
    beside = do(what, tmp_path / "beside")
    monkeypatch.setattr("harness.training.finish.decode_time", lambda *_, **__: None)
    alone = do(what, tmp_path / "alone")
    assert beside.speed.decode_seconds > 0
    assert alone.speed.decode_seconds is None
    assert without_clock(beside.curve) == without_clock(alone.curve)
    assert (beside.metrics, beside.data, beside.provenance.kernels) == (
        alone.metrics,
        alone.data,
        alone.provenance.kernels,
    )
