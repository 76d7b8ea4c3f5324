"""The process of one run, which trains, sends events to its parent and leaves a record."""

import contextlib
import gc
import re
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.records.record import Error, Metrics, Record, Status, empty_record
from harness.records.spec import RunSpec
from harness.records.store import Store
from harness.training.published import score_published
from harness.training.train import Stopped, train
from zoo.registry import load_plugin
from zoo.size import Size
from zoo.types import Unsupported


@dataclass(frozen=True)
class Job:
    """One run to do, and what a fresh process needs for it."""

    spec: RunSpec
    metrics: Metrics
    """What its task is ranked by."""
    size: Size
    store: Store
    threads: int
    plugins: tuple[str, ...]
    checkpoint: float
    """Seconds between two checkpoints."""
    keep: bool
    """Whether the weights stay."""

    @property
    def weight(self) -> float:
        """The relative cost of a run, for the time left: parameters times tokens, where its end is known in tokens."""
        stop = self.spec.stop
        return self.size.params * (stop.limit if stop is not None and stop.meter == "tokens" else 1.0)


def main(job: Job, pipe: Connection) -> None:
    """Run a job to its record. SIGTERM, or a parent that is gone, makes it write a checkpoint and leave."""
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True

    def report(event: dict[str, Any]) -> None:
        try:
            pipe.send(event)
        except (BrokenPipeError, OSError):
            stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    torch.set_num_threads(job.threads)
    gc.freeze()  # what was loaded so far stays: no collection has to walk it
    with contextlib.suppress(Stopped):
        record = _record(job, report, lambda: stopping)
        job.store.write(record)
        report({"event": "end", "status": record.status, "error": record.error})
    pipe.close()


def _record(job: Job, report: Any, stop: Any) -> Record:
    """The record of a run, also of one that raises an error."""
    suite, folder = job.store.suite, job.store.run_folder(job.spec.run_id)
    try:
        for plugin in job.plugins:
            load_plugin(plugin)
        task = job.spec.build_task()
        if job.spec.pretrained:
            return score_published(job.spec, suite, task)
        saving: dict[str, Any] = {"checkpoint": job.checkpoint, "keep": job.keep, "plugins": job.plugins}
        return train(job.spec, task, job.size, suite=suite, folder=folder, report=report, stop=stop, **saving)
    except Stopped:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno} in {frame.name}"
        details = Error(type(error).__name__, " ".join(str(error).split()), where)
        return empty_record(job.spec, suite, job.metrics, _status(error), details)


def _status(error: Exception) -> Status:
    if isinstance(error, Unsupported):
        return "unsupported"
    said = isinstance(error, RuntimeError) and re.search("not enough memory|can't allocate memory", str(error))
    return "oom" if said or isinstance(error, (MemoryError, torch.OutOfMemoryError)) else "failed"
