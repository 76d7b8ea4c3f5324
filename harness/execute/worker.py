"""The process of one run, which trains, sends events to its parent and leaves a record."""

from __future__ import annotations

import contextlib
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from harness.plan.sizes import resolve_size
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
    suite: str
    root: Path
    threads: int
    plugins: tuple[str, ...] = ()
    size: Size | None = None
    checkpoint: float = 20.0
    keep: bool = False
    """Whether the weights stay."""


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
    store = Store(job.suite, job.root)
    with contextlib.suppress(Stopped):
        record = _record(job, store, report, lambda: stopping)
        store.write(record)
        report({"event": "end", "status": record.status, "error": record.error})
    pipe.close()


def _record(job: Job, store: Store, report: Any, stop: Any) -> Record:
    def failed(status: Status, error: BaseException) -> Record:
        details = Error(type(error).__name__, " ".join(str(error).split()), _where(error))
        return empty_record(job.spec, job.suite, job.metrics, status, details)

    try:
        for plugin in job.plugins:
            load_plugin(plugin)
        task = job.spec.build_task()
        if job.spec.pretrained:
            return score_published(job.spec, job.suite, task)
        return train(
            job.spec,
            task,
            job.size or resolve_size(job.spec, task),
            suite=job.suite,
            folder=store.run_folder(job.spec.run_id),
            report=report,
            stop=stop,
            checkpoint=job.checkpoint,
            keep=job.keep,
            plugins=job.plugins,
        )
    except Stopped:
        raise
    except Unsupported as error:
        return failed("unsupported", error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        return failed("oom", error)
    except RuntimeError as error:
        starved = "not enough memory" in str(error) or "can't allocate memory" in str(error)
        return failed("oom" if starved else "failed", error)
    except Exception as error:
        return failed("failed", error)


def _where(error: BaseException) -> str:
    """The innermost frame of an error: file, line, function."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
