"""The process of one run, which trains, sends events to its parent and leaves a record."""

import errno
import gc
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.errors import UserError, no_memory
from harness.isolation import lease
from harness.isolation.beat import beat
from harness.isolation.supervisor import Report
from harness.plan.sizes import resolve_size
from harness.records.files import finite
from harness.records.mirror import mirror_of
from harness.records.record import Error, Metrics, Record, Status, empty_record
from harness.records.spec import RunSpec
from harness.records.store import Store
from harness.training.distributed import ONE_DEVICE, CannotShard, OneDevice, on_ranks
from harness.training.published import score_published
from harness.training.train import Stopped, train
from zoo.ops import forms
from zoo.registry import load_plugin
from zoo.size import Size
from zoo.types import Unsupported

MOST_SAID = 1000
"""Characters of an error that a record keeps."""

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
"""Errors of the machine, whoever meets them."""


@dataclass(frozen=True)
class Job:
    """One run to do, and what a fresh process needs for it."""

    spec: RunSpec
    metrics: Metrics
    """What its task is ranked by."""
    size: Size | None
    """None where it is still to be found."""
    store: Store
    threads: int
    plugins: tuple[str, ...]
    checkpoint: float
    """Seconds between two checkpoints."""
    keep: bool
    """Whether the weights stay."""
    devices: int = 1
    """On which it is trained together."""
    shard: bool = False
    """Whether each of them holds a part of the model."""
    recompute: bool = False
    """Whether blocks are computed again in the backward pass."""

    @property
    def weight(self) -> float:
        """The relative cost of a run, for the time left: parameters times tokens, where its end is known in tokens."""
        stop = self.spec.stop
        tokens = stop.limit if stop is not None and stop.meter == "tokens" else 1.0
        return tokens * (self.size.params if self.size else 1)

    @property
    def name(self) -> str:
        """The run's id."""
        return self.spec.run_id

    @property
    def folder(self) -> Path:
        """The run's folder, to be written to.

        Raises:
            OSError: it is a symbolic link.
        """
        return self.store.own_path(self.name)

    def taken(self) -> bool:
        """Whether another process makes the run."""
        return lease.taken(self.folder)

    def outcome(self) -> tuple[str, Any] | None:
        """The status and the error in the run's record; None without one."""
        record = self.store.read(self.name) if self.store.made_here(self.name) else None
        return (record.status, record.error) if record else None

    def fail(self, status: Any, kind: str, message: str) -> None:
        """Leave a record for a process that could not leave its own."""
        self.store.write(empty_record(self.spec, self.store.suite, self.metrics, status, Error(kind, message, "")))

    def work(self, report: Report) -> None:
        """Do the run, to its record. SIGTERM makes it write a checkpoint and leave, so that it can go on there.

        What the machine alone prevents (a stop, a full disk) is reported as `lost`, and is no record.
        """
        stopping = False

        def stop(*_: Any) -> None:
            nonlocal stopping
            stopping = True

        signal.signal(signal.SIGTERM, stop)
        torch.set_num_threads(self.threads)
        forms.on_compile += [beat, lambda: report({"event": "compiling"})]
        gc.freeze()  # what was loaded so far stays: no collection has to walk it
        try:
            with lease.hold(self.folder):
                if not self.store.made_here(self.name):
                    record = self._made(report, lambda: stopping)
                    self.store.write(record)
                    report({"event": "end", "status": record.status, "error": record.error})
        except lease.Taken:
            report({"event": "taken"})
        except Stopped:
            report({"event": "lost", "message": "asked to stop from outside"})
        except (OSError, UserError) as error:
            if getattr(error, "errno", None) in (errno.EMFILE, errno.EFBIG):  # the model's doing: its files, its limit
                raise
            report({"event": "lost", "message": str(error)})

    def _made(self, report: Report, stop: Callable[[], bool]) -> Record:
        """Its record, whether on one device or on several."""
        if self.devices == 1 or self.spec.pretrained:
            return _record(self, report, stop, ONE_DEVICE)

        def work(ranks: OneDevice) -> Record:
            torch.set_num_threads(self.threads)
            return _record(self, (lambda event: None) if ranks.rank else report, stop, ranks)

        return on_ranks(self.devices, work, shard=self.shard)


@dataclass(frozen=True)
class SharedJob(Job):
    """A run of results that lie at a URL (`harness.records.mirror`): made by who has its lease there."""

    def taken(self) -> bool:
        mirror = mirror_of(self.store.folder.parent)
        return super().taken() or (mirror is not None and not mirror.lease(f"{self.store.suite}/{self.name}"))

    def outcome(self) -> tuple[str, Any] | None:
        mirror = mirror_of(self.store.folder.parent)
        if mirror is not None and not self.store.made_here(self.name):
            mirror.has(f"{self.store.suite}/{self.name}")
        return super().outcome()


def _record(job: Job, report: Report, stop: Callable[[], bool], ranks: OneDevice) -> Record:
    """The record of a run, also of one that raises an error."""
    suite, folder = job.store.suite, job.folder
    try:
        for plugin in job.plugins:
            load_plugin(plugin)
        task = job.spec.build_task()
        if job.spec.pretrained:
            return score_published(job.spec, suite, task)
        given: dict[str, Any] = {"checkpoint": job.checkpoint, "keep": job.keep, "plugins": job.plugins, "ranks": ranks}
        given["recompute"] = job.recompute
        size = job.size or resolve_size(job.spec, task)
        record = train(job.spec, task, size, suite=suite, folder=folder, report=report, stop=stop, **given)
        Record.from_dict(finite(record))  # or what is written could not be read, as without a number for its time
        return record
    except (Stopped, CannotShard):
        raise
    except Exception as error:
        if any(os.strerror(code) in str(error) for code in DISK):  # also in the words of what raises its own kind
            raise OSError(str(error)) from error
        traceback.print_exc()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno} in {frame.name}"
        details = Error(type(error).__name__, " ".join(str(error).split())[:MOST_SAID], where)
        return empty_record(job.spec, suite, job.metrics, _status(error), details)


def _status(error: Exception) -> Status:
    if isinstance(error, Unsupported):
        return "unsupported"
    triton = type(error).__name__ == "OutOfResources"  # of its own, imported with it
    return "oom" if triton or no_memory(error) else "failed"
