"""Short runs on a tiny task, the gates they fail, an honest mixer and one that peeks."""

from types import FunctionType, MappingProxyType
from typing import Any

import pytest
import torch
from torch import nn

import zoo.blocks.heads
from harness.gates.registry import gates
from harness.records.meters import StopRule
from harness.records.record import Record
from harness.records.spec import EvaluateSettings, RunSpec
from harness.training import reference
from zoo.blocks.heads import LanguageModel
from zoo.contract import Mixer, Traits

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


class Plain(Mixer):
    """A projection of the mean of what was so far."""

    traits = Traits(causal="strict", bidirectional=False, resumable=False)

    def __init__(self, context):
        super().__init__(context)
        self.mix = nn.Linear(context.width, context.width)
        self.bring(context.width)

    def bring(self, width):
        """What a cheat needs beside it."""

    def past(self, x):
        return self.mix(x).cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]

    def forward(self, x, *, mask=None, state=None):
        return self.past(x), None


class Peek(Plain):
    """A convolution padded on both sides: output t sees input t + 1."""

    def bring(self, width):
        self.conv = nn.Conv1d(width, width, 3, padding=1)

    def past(self, x):
        return self.conv(x.mT).mT


def plain(self, x):
    """What an honest mixer gives."""
    return Plain.past(self, x)


def answer(self, batch):
    """What an honest language model gives."""
    return LanguageModel.forward(self, batch)


@pytest.fixture
def failed(tmp_path, monkeypatch):
    """Trains a mixer, or a language model of plain ones; which of the gates `asked`, of all by default, it fails."""
    monkeypatch.setattr(reference, "LEAST", 1)  # it takes longer than the runs

    def judge(kind, asked=None, **changes):
        mixer = kind if issubclass(kind, Mixer) else Plain
        if mixer is not kind:
            monkeypatch.setitem(zoo.blocks.heads.MODELS, "lm", kind)
        zoo.register(kind.__name__.lower())(mixer)
        skipped = () if asked is None else tuple(sorted(gates().keys() - asked))
        settings = EvaluateSettings(0.5, 64, 128, skipped)
        judge.record = do(spec(kind.__name__.lower(), evaluate=settings, **changes), tmp_path)
        assert judge.record.status == "ok", judge.record.error
        found = failed_gates(judge.record)
        assert judge.record.eligibility.ranked is not bool(found)
        return found

    return judge


def collects(cheats):
    """A decorator that adds cheats: a class, gates that must catch it, others that may (None: any), other settings."""

    def caught_by(named, also=None, changes=MappingProxyType({}), **bodies):
        """Registers cheats: a class, or methods `past` of a plain mixer (of `x`) or `forward` of a language model."""

        def add(kind):
            if isinstance(kind, FunctionType):
                base, method = (Plain, "past") if "x" in kind.__code__.co_varnames[:2] else (LanguageModel, "forward")
                kind = type(kind.__name__, (base,), {method: kind, "__module__": kind.__module__})
            allowed = None if also is None else {*also.split()}
            cheats.append(pytest.param(kind, {*named.split()}, allowed, changes, id=kind.__name__))
            return kind

        for name, body in bodies.items():
            body.__name__ = name
            add(body)
        return add

    return caught_by


def is_caught(failed, kind, named, also, changes):
    """That a cheat fails the gates that name it, and no others than it may."""
    found = failed(kind, named if also is None else None, **changes)
    assert found >= named
    assert also is None or found <= named | also
