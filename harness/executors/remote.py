"""Runs on other machines that share a folder with this one: what they report, and being told to stop, goes by files.

The record that a run leaves is its result. Files in its `checkpoint` folder tell the rest: `events`, a line of JSON
for each, and `stop`, which has it stop.
"""

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

from harness.executors.pool import OUTPUT, Job
from harness.isolation.memory import machine_memory
from harness.isolation.supervisor import Bounds, Ended, Supervised
from harness.processes import default_workers
from zoo import files

EVENTS, STOP = "events", "stop"


def perform(job: Job, bounds: Bounds, threads: int) -> Ended | None:
    """Do a job on this machine, in a process of its own; returns how it ended, None where nobody knows.

    Args:
        threads: cores that it has; it may use as much of this machine's memory, unless its bounds say.
    """
    memory = bounds.memory or machine_memory() * min(threads, default_workers()) // default_workers()
    bounds = replace(bounds, log=job.folder / OUTPUT, memory=memory)
    process = Supervised(bounds, job.work, card=os.environ.get("CUDA_VISIBLE_DEVICES") or None)
    told = False
    try:
        while not process.gone:
            wait([process.pipe], timeout=0.5)
            for event in process.events():
                _append(job.folder, event)
            if not told and _path(job.folder, STOP).exists():
                told = True
                process.ask("stop")
    except BaseException:  # as when the cluster ends this process
        process.ask("stop")
        raise
    return process.ended


def _path(folder: Path, name: str) -> Path:
    return files.inside(folder, "checkpoint", name)


def _append(folder: Path, event: dict[str, Any]) -> None:
    """Keep an event; of the end, the record tells."""
    with contextlib.suppress(OSError, TypeError):
        line = (json.dumps(event) + "\n").encode()
        file = os.open(_path(folder, EVENTS), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)


class Remote(ABC):
    """A job under way on another machine; see `Handle`. What an earlier one has left is removed before it starts."""

    def __init__(self, job: Job) -> None:
        self.folder, self.gone, self._told = job.folder, False, 0
        self.ended: Ended | None = None
        for name in (EVENTS, STOP):
            _path(self.folder, name).unlink(missing_ok=True)

    @abstractmethod
    def finished(self) -> bool:
        """Whether it has ended, or got lost."""

    @abstractmethod
    def result(self) -> Ended | None:
        """What `perform` returned; raises any error where it got lost."""

    @abstractmethod
    def kill(self) -> None:
        """End it, whatever it takes."""

    def events(self) -> Iterator[dict[str, Any]]:
        """What it has reported since the last call."""
        finished = self.finished()
        yield from self._read()
        if finished and not self.gone:
            self.gone = True
            try:
                self.ended = self.result()
            except Exception as error:  # whatever a cluster raises for a job that it lost
                said = " ".join(str(error).split()).partition(". ")[0]
                yield {"event": "lost", "message": f"{type(error).__name__}: {said}"[:200]}

    def _read(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(OSError), files.open_regular(_path(self.folder, EVENTS)) as file:
            file.seek(self._told)
            for line in file:
                if line.endswith(b"\n"):
                    self._told += len(line)
                    with contextlib.suppress(ValueError):
                        yield json.loads(line)

    def ask(self, what: Literal["stop", "kill"]) -> None:
        """Have it stop within some seconds, or at once."""
        if what == "kill":
            self.kill()
        else:
            with contextlib.suppress(OSError):
                _path(self.folder, STOP).touch()
