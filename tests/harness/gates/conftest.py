"""Short runs on a tiny task, the gates they fail, an honest mixer and one that peeks."""

from typing import Any

import torch
from torch import nn

from harness.records.meters import StopRule
from harness.records.record import Record
from harness.records.spec import EvaluateSettings, RunSpec
from zoo.contract import Mixer, Traits

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
