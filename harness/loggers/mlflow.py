"""MLflow: an experiment a suite, in a SQLite file or on the server of MLFLOW_TRACKING_URI."""

import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from harness.loggers.base import LoggedRun
from harness.records.record import Status

ID = "zoobench.run_id"
"""The tag by which a resumed run is found."""

SERVER = "MLFLOW_TRACKING_URI"


class MLflow:
    """One run, its hyperparameters as params."""

    @staticmethod
    def prepare(folder: Path, suite: str) -> str:
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # creating tables is no news
        return os.environ.get(SERVER) or f"mlflow ui --backend-store-uri {_uri(folder)}"

    def __init__(self, run: LoggedRun) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(_uri(run.folder))
        experiment = self._experiment(run)
        found = self.client.search_runs([experiment], f"tags.`{ID}` = '{run.id}'")
        if run.resumed and found:
            self.id: str = found[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
            self.last = max((point.step for point in self.client.get_metric_history(self.id, "train/loss")), default=0)
            return
        for old in found:
            self.client.delete_run(old.info.run_id)
        tags = {ID: run.id, "group": run.group, "kind": run.spec.kind}
        self.id, self.last = self.client.create_run(experiment, run_name=run.name, tags=tags).info.run_id, 0
        self.client.log_batch(self.id, params=[Param(_key(name), str(value)) for name, value in run.config.items()])

    def _experiment(self, run: LoggedRun) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.suite)
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        local = None if os.environ.get(SERVER) else (run.folder / "artifacts").resolve().as_uri()
        return str(self.client.create_experiment(name, artifact_location=local))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(self.id, [Metric(_key(name), value, now, step) for name, value in values.items()])

    def finish(self, step: int, scores: Mapping[str, float], facts: Mapping[str, float], status: Status) -> None:
        self.log(step, {**scores, **facts})
        self.client.set_tag(self.id, "status", status)
        self.client.set_terminated(self.id, "FINISHED" if status == "ok" else "FAILED")

    def close(self) -> None:
        self.client.set_terminated(self.id, "KILLED")


def _uri(folder: Path) -> str:
    return os.environ.get(SERVER) or f"sqlite:///{folder / 'mlflow.db'}"


def _key(name: str) -> str:
    """A name that MLflow takes: `accuracy@4x` is `accuracy:4x`."""
    return re.sub(r"[^\w/.\- :]", ":", name)
