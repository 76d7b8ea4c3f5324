"""Loggers change no run, fail no run, and are found by name."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from rich.console import Console

import harness
from harness.loggers import LOGGERS, open_loggers
from harness.loggers.base import LoggedRun
from harness.records.store import Store
from tests.harness.made import make_spec, make_trial, without_clock


class Drawing:
    """A logger that draws from every random state there is, and keeps what it is told."""

    kept: dict[str, dict[int, dict[str, Any]]]
    last = 0

    @staticmethod
    def prepare(folder: Path, suite: str) -> str:
        return "nowhere"

    def __init__(self, run: LoggedRun) -> None:
        self.mine = self.kept.setdefault(run.name, {})

    def log(self, step: int, values: Any) -> None:
        random.random(), np.random.rand(), torch.rand(1)
        self.mine[step] = values

    def finish(self, step: int, scores: Any, facts: Any, status: str) -> None:
        self.mine[-1] = {**scores, **facts, "status": status}

    def close(self) -> None: ...


class Broken(Drawing):
    """A logger whose disk is full after two points."""

    def log(self, step: int, values: Any) -> None:
        if step > 2:
            raise OSError("no space left on device")


@pytest.fixture
def loggers(monkeypatch: pytest.MonkeyPatch) -> type[Drawing]:
    """`drawing` and `broken` are loggers, `missing` one whose package is not installed."""
    Drawing.kept = {}
    monkeypatch.setitem(sys.modules, "tests_loggers", SimpleNamespace(Drawing=Drawing, Broken=Broken))
    known = {"drawing": "tests_loggers:Drawing", "broken": "tests_loggers:Broken", "missing": "zoobench_missing:No"}
    for name, where in known.items():
        monkeypatch.setitem(LOGGERS, name, where)
    return Drawing


def test_runs_are_equal_with_and_without_loggers(
    suite: Callable[..., Path], loggers: type[Drawing], tmp_path: Path, quiet: Console
) -> None:
    path = suite(architectures=["lstm"], seeds=[0], tuning={"lr": [0.01]})
    plain = harness.run(path, root=tmp_path / "plain", workers=2, console=quiet)
    logged = harness.run(path, root=tmp_path / "logged", workers=2, console=quiet, log=("broken", "drawing"))
    assert len(plain.records) == 1
    for one, other in zip(plain.records, logged.records, strict=True):
        assert without_clock(one.curve) == without_clock(other.curve)
        assert (one.metrics, one.data, one.status) == (other.metrics, other.data, other.status)
        kept = loggers.kept[f"{one.spec.architecture}/mqar/seed-0"]
        assert {step: values["train/loss"] for step, values in kept.items() if step > 0} == {
            point.steps: point.loss for point in other.curve
        }
        assert kept[-1]["test/accuracy"] == one.metrics.test["accuracy"]
        assert kept[-1]["status"] == "ok"
    assert len(loggers.kept) == 2  # the trial, too
    assert quiet.file.getvalue().count("no space left on device") == 1


def test_names_and_config_of_a_run() -> None:
    spec = make_spec(architecture_label="../pre ln", track="params")
    run = LoggedRun("tiny", spec, Path(), resumed=False)
    assert run.name == ".._pre_ln/mqar/params/seed-0"
    assert run.group == "../pre ln · mqar · params"
    assert run.config["train.lr"] == 0.01
    assert run.config["task_options.pairs"] == 2
    assert run.config["train.betas"] == "[0.9, 0.95]"
    trial = LoggedRun("tiny", make_trial(), Path(), resumed=False)
    assert trial.name == "pre_ln/mqar/lr=0.01,weight_decay=0.1,warmup=0.1"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorbord", "unknown logger 'tensorbord'; did you mean 'tensorboard'?"),
        ("drawing,missing", "pip install 'zoobench[missing]'"),
    ],
)
def test_a_logger_that_is_not_there_stops_before_anything_runs(
    name: str,
    said: str,
    suite: Callable[..., Path],
    loggers: type[Drawing],
    call: Callable[..., Result],
    tmp_path: Path,
) -> None:
    result = call("run", suite(), "--results", tmp_path / "results", "--log", name, status=2)
    assert said in result.output
    assert not (tmp_path / "results").exists()


def test_no_logger_by_default(tmp_path: Path, quiet: Console) -> None:
    assert open_loggers((), Store("tiny", tmp_path), quiet).each == []
