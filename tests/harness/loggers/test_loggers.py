"""Each logger holds the curve, scores and hyperparameters of a run, read back by its own reader."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.loggers import open_loggers
from harness.records.record import Record
from harness.records.spec import RunSpec
from harness.records.store import Store
from harness.training.train import Stopped
from tests.harness.made import do, do_until, make_spec

Read = tuple[list[tuple[int, float]], list[tuple[int, float]], dict[str, Any], dict[str, Any]]
"""`train/loss` and `valid/accuracy` with their steps; the last value of every metric; the hyperparameters."""


def read_tensorboard(folder: Path, suite: str, spec: RunSpec) -> Read:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    there = EventAccumulator(str(folder / "pre_ln" / "mqar" / f"seed-0-{spec.run_id}")).Reload()
    curves = {tag: [(event.step, event.value) for event in there.Scalars(tag)] for tag in there.Tags()["scalars"]}
    start = there.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    config = HParamsPluginData.FromString(start).session_start_info.hparams
    given = {name: value.number_value or value.string_value for name, value in config.items()}
    final = {tag: points[-1][1] for tag, points in curves.items()}
    return curves["train/loss"], curves["valid/accuracy"], final | given, given


def read_wandb(folder: Path, suite: str, spec: RunSpec) -> Read:
    (file,) = folder.glob(f"offline-run-*-{spec.run_id}/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    final: dict[str, Any] = {}
    for record in records:
        if record["type"] == "summary":
            final |= record["summary"]["update"]
    (config,) = [record["run"]["config"]["update"] for record in records if record["type"] == "run"]
    loss, valid = ([(row["_step"], row[tag]) for row in rows if tag in row] for tag in ("train/loss", "valid/accuracy"))
    return loss, valid, final, config


def read_mlflow(folder: Path, suite: str, spec: RunSpec) -> Read:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name(suite).experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "pre_ln/mqar/seed-0"
    loss, valid = (
        [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, tag)]
        for tag in ("train/loss", "valid/accuracy")
    )
    config = {name: float(value) if name == "train.lr" else value for name, value in run.data.params.items()}
    return loss, valid, {**run.data.metrics, "status": run.data.tags["status"]}, config


def read_trackio(folder: Path, suite: str, spec: RunSpec) -> Read:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs(suite)
    rows = SQLiteStorage.get_logs(suite, run.name, run_id=run.id)
    loss, valid = ([(row["step"], row[tag]) for row in rows if tag in row] for tag in ("train/loss", "valid/accuracy"))
    return loss, valid, rows[-1], run.config


READERS: dict[str, Callable[[Path, str, RunSpec], Read]] = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each logger that is installed, without an account or a server."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # which the first import keeps
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pytest.importorskip(request.param)
    return str(request.param)


def run_logged(name: str, store: Store, spec: RunSpec, until: int | None = None) -> Record | None:
    """Train in this process, to the end or until a step; what it reports goes to a logger."""
    console, steps, folder = Console(quiet=True), count(1), store.run_folder(spec.run_id)
    with open_loggers(name, store, console) as followers:
        more: dict[str, Any] = {"report": lambda event: followers.event(spec, event)}
        if until is not None:
            with pytest.raises(Stopped):
                do(spec, folder, stop=lambda: next(steps) == until, **more)
            return None
        record = do(spec, folder, **more)
        store.write(record)
        followers.event(spec, {"event": "end"})
    assert not any(follower.failed for follower in followers.each)
    return record


def test_a_resumed_run_is_logged_whole_and_once(name: str, tmp_path: Path) -> None:
    """It begins without a logger, is killed four steps after a checkpoint, and ends on the third start."""
    store, spec = Store("resumed", tmp_path), make_spec()
    checkpoint = store.run_folder(spec.run_id) / "checkpoint"
    do_until(4, spec, store.run_folder(spec.run_id))
    shutil.copytree(checkpoint, tmp_path / "kept")
    run_logged(name, store, spec, until=4)
    shutil.rmtree(checkpoint)
    shutil.copytree(tmp_path / "kept", checkpoint)
    record = run_logged(name, store, spec)
    assert record is not None
    loss, valid, final, config = READERS[name](store.folder / "logs" / name, store.suite, spec)
    assert loss == [(point.steps, pytest.approx(point.loss)) for point in record.curve]
    scored = [(point.steps, point.valid["accuracy"]) for point in record.curve if point.valid]
    assert valid == scored
    assert final["test/accuracy"] == pytest.approx(record.metrics.test["accuracy"])
    assert record.size is not None
    assert final["size/params"] == record.size.params
    assert final["memory/peak_bytes"] == record.memory.peak_bytes
    assert final["status"] == "ok"
    assert config["train.lr"] == spec.train.lr
    assert config["run_id"] == spec.run_id


def test_a_run_that_starts_anew_takes_the_place_of_its_log(name: str, tmp_path: Path) -> None:
    store, spec = Store("anew", tmp_path), make_spec()
    with open_loggers(name, store, Console(quiet=True)) as followers:
        followers.event(spec, {"event": "start", "resumed_at": 0, "curve": []})
        followers.event(spec, {"event": "step", "steps": 5, "tokens": 1, "flops": 1, "seconds": 1, "loss": 99})
    record = run_logged(name, store, spec)
    assert record is not None
    loss, *_ = READERS[name](store.folder / "logs" / name, store.suite, spec)
    assert loss == [(point.steps, pytest.approx(point.loss)) for point in record.curve]
