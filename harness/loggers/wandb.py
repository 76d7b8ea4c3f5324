"""Weights & Biases: a project a suite, online, or offline with WANDB_MODE=offline."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import wandb

from harness.errors import UserError
from harness.loggers.base import LoggedRun
from harness.records.record import Status


class Wandb:
    """One run, with its final size, speed and memory in the summary."""

    @staticmethod
    def prepare(folder: Path, suite: str) -> str:
        if _offline():
            return f"wandb sync {os.environ.get('WANDB_DIR', folder.parent)}/wandb/offline-run-*"
        if not wandb.login(prompt=False, verify=False):
            raise UserError("wandb knows no account: `wandb login`, or set WANDB_MODE=offline", key="--log")
        return f"{wandb.setup().settings.base_url}, project {_project(suite)}"

    def __init__(self, run: LoggedRun) -> None:
        where = Path(os.environ.get("WANDB_DIR", run.folder.parent))
        where.mkdir(parents=True, exist_ok=True)
        if _offline():  # a sync takes one folder a run: the new one will hold all of it
            for folder in where.glob(f"wandb/offline-run-*-{run.id}"):
                shutil.rmtree(folder)
        self.run = wandb.init(
            dir=str(where),
            project=_project(run.suite),
            group=run.group,
            name=run.name,
            id=run.id,
            job_type=run.spec.kind,
            config=dict(run.config),
            resume="allow" if run.resumed else None,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )
        self.last = self.run.step - 1 if self.run.resumed else 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def finish(self, step: int, scores: Mapping[str, float], facts: Mapping[str, float], status: Status) -> None:
        if scores:
            self.run.log(dict(scores), step=step)
        self.run.summary.update({**facts, "status": status})
        self.run.finish(exit_code=int(status != "ok"))

    def close(self) -> None:
        self.run.finish(exit_code=1)


def _offline() -> bool:
    return wandb.setup().settings.mode in ("offline", "dryrun")


def _project(suite: str) -> str:
    return os.environ.get("WANDB_PROJECT", suite)
