"""TensorBoard: a folder a run, its hyperparameters, size, speed and memory in the HPARAMS tab."""

import re
from collections.abc import Mapping
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from harness.loggers.base import LoggedRun
from harness.records.record import Status


class TensorBoard:
    """One run, in `ARCHITECTURE/TASK/seed-0-RUN_ID`."""

    @staticmethod
    def prepare(folder: Path, suite: str) -> str:
        return f"tensorboard --logdir {folder}"

    def __init__(self, run: LoggedRun) -> None:
        self.config = run.config
        folder = run.folder / re.sub(r"(^|/)\.+", r"\1_", f"{run.name}-{run.id}")
        files = [*folder.glob("events.out.tfevents.*")]
        if run.resumed:
            self.last = max((event.step for file in files for event in EventFileLoader(str(file)).Load()), default=0)
        else:
            self.last = 0
            for file in files:
                file.unlink()
        self.writer = SummaryWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # TensorBoard may be open beside

    def finish(self, step: int, scores: Mapping[str, float], facts: Mapping[str, float], status: Status) -> None:
        self.log(step, scores)
        columns = {**self.config, **facts, "status": status}
        for summary in hparams(columns, dict.fromkeys(("train/loss", *scores))):
            self.writer.file_writer.add_summary(summary)
        self.close()

    def close(self) -> None:
        self.writer.close()
