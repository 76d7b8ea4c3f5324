"""Plug-ins trained for some steps on a tiny task, and the gates they fail."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

import tasks
import zoo
from harness.plan.sizes import resolve_size
from harness.records.spec import RunSpec
from harness.training.train import train

TRAIN = {
    "batch_tokens": 64,
    "optimizer": "adamw",
    "lr": 0.01,
    "betas": [0.9, 0.95],
    "weight_decay": 0.1,
    "schedule": "cosine",
    "warmup": 0.1,
    "final_lr": 0.1,
    "clip": 1.0,
    "precision": "fp32",
}
MQAR = {"length": 16, "pairs": 3, "vocab": 16}


def spec(architecture: str, **changes: Any) -> RunSpec:
    """A run of 10 steps on `mqar` that matches nothing."""
    task = changes.pop("task", "mqar")
    base = RunSpec(
        architecture=architecture,
        architecture_label=architecture,
        options={"depth": 1, "width": 16},
        task=task,
        task_label=task,
        task_options=changes.pop("task_options", MQAR if task == "mqar" else {}),
        role=tasks.get(task).make.role,
        seed=0,
        kind="final",
        match=None,
        stop={"steps": 10},
        train=TRAIN,
        evaluate={"every": 0.5, "valid": 64, "test": 128},
    )
    return base.replace(**changes)


def run(what: RunSpec, folder: pathlib.Path) -> dict[str, Any]:
    """Its record."""
    task = what.build_task()
    return train(what, task, resolve_size(what, task), suite="tiny", folder=folder)


@pytest.fixture(autouse=True)
def one_thread():
    """As a worker has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def failed(tmp_path) -> Callable[..., set[str]]:
    """Trains a mixer (or what is registered under a name) and says which gates it fails."""

    def judge(mixer: Any, **changes: Any) -> set[str]:
        name = mixer
        if not isinstance(mixer, str):
            name = mixer.__name__.lower()
            zoo.register(name)(mixer)
        record = run(spec(name, **changes), tmp_path)
        assert record["status"] == "ok", record["error"]
        gates = record["eligibility"]["gates"]
        judge.gates = gates
        found = {gate for gate, said in gates.items() if not said["passed"]}
        assert record["eligibility"]["ranked"] is not bool(found)
        return found

    return judge
