"""Specs, runs and records for tests."""

import math
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import tasks
from harness.plan.sizes import resolve_size
from harness.records.meters import StopRule
from harness.records.record import CurvePoint, Metrics, Record, Status, empty_record
from harness.records.spec import EvaluateSettings, RunSpec, TrainSettings
from harness.training.train import Stopped, train

TRAIN = TrainSettings(
    batch_tokens=32,
    optimizer="adamw",
    lr=0.01,
    betas=(0.9, 0.95),
    weight_decay=0.1,
    schedule="cosine",
    warmup=0.1,
    final_lr=0.1,
    clip=1.0,
    precision="fp32",
)


def make_spec(architecture: str = "pre_ln", *, task: str = "mqar", **changes: Any) -> RunSpec:
    """A run of 12 steps on a tiny `mqar` that matches nothing, with some fields replaced; `train` by its keys."""
    given = changes.pop("task_options", {"length": 8, "pairs": 2, "vocab": 16} if task == "mqar" else {})
    base = RunSpec(
        architecture=architecture,
        architecture_label=architecture,
        options={"depth": 1, "width": 16},
        task=task,
        task_label=task,
        task_options=given,
        role=tasks.get(task).make.role,
        seed=0,
        kind="final",
        match=None,
        stop=StopRule("steps", 12),
        train=replace(TRAIN, **changes.pop("train", {})),
        evaluate=EvaluateSettings(0.25, 8, 8),
        fingerprint=tasks.build(task, **given).fingerprint,
    )
    return base.replace(**changes)


def make_trial(architecture: str = "pre_ln", **changes: Any) -> RunSpec:
    """The same as a trial, which is scored on `tune` alone and judged by no gate."""
    evaluate = EvaluateSettings(0.5, 8, 8, split="tune")
    return make_spec(architecture, **{"kind": "trial", "evaluate": evaluate, **changes})


def do(spec: RunSpec, folder: Path, *, suite: str = "tiny", **more: Any) -> Record:
    """Train a run in this process; its record."""
    task = spec.build_task()
    return train(spec, task, resolve_size(spec, task), suite=suite, folder=folder, **more)


def do_until(step: int, spec: RunSpec, folder: Path) -> None:
    """Train a run up to a step, where it is stopped and leaves its checkpoint."""
    steps = count(1)
    with pytest.raises(Stopped):
        do(spec, folder, stop=lambda: next(steps) == step)


def without_clock(curve: list[CurvePoint]) -> list[dict[str, Any]]:
    """A curve without its seconds."""
    return [{**asdict(point), "seconds": None} for point in curve]


def make_record(spec: RunSpec, value: float | None = None, status: Status = "ok") -> Record:
    """A record with one score on `valid`, the loss."""
    valid = {} if value is None or math.isnan(value) else {"loss": value}
    return empty_record(spec, "tiny", Metrics("loss", higher_is_better=False, valid=valid), status)
