"""A pool on this machine: each run in a fresh process, the cores divided among them."""

import contextlib
import multiprocessing.connection
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.execute.progress import Live
from harness.execute.worker import Job, main
from harness.processes import launch
from harness.records.record import Error, Status, empty_record


@dataclass
class _Slot:
    job: Job
    process: Any
    pipe: Any
    started: float


def run(jobs: Iterable[Job], *, workers: int, timeout: float | None, display: Live) -> None:
    """Run every job. On KeyboardInterrupt the runs under way write checkpoints before it propagates."""
    queue, slots = list(jobs)[::-1], list[_Slot]()
    try:
        while queue or slots:
            while queue and len(slots) < workers:
                job = queue.pop()
                slots.append(_Slot(job, *launch(main, job), time.monotonic()))
            waited_for = [waited for slot in slots for waited in (slot.pipe, slot.process.sentinel)]
            multiprocessing.connection.wait(waited_for, timeout=0.5)
            for slot in list(slots):
                _drain(slot, display)
                if timeout is not None and time.monotonic() - slot.started > timeout and slot.process.is_alive():
                    slot.process.kill()
                    slot.process.join()
                    cause: tuple[Status, str] = ("timeout", f"stopped after {timeout:.0f} s of wall time")
                elif not slot.process.is_alive():
                    cause = _cause(slot.process.exitcode)
                else:
                    continue
                _drain(slot, display)
                _close(slot, display, *cause)
                slots.remove(slot)
    finally:
        for slot in slots:
            slot.process.terminate()
        for slot in slots:
            slot.process.join(60)


def _drain(slot: _Slot, display: Live) -> None:
    with contextlib.suppress(EOFError, OSError):
        while slot.pipe.poll():
            display.event(slot.job.spec, slot.pipe.recv())


def _cause(code: int | None) -> tuple[Status, str]:
    if code == -9:
        return "oom", "the process was killed, most likely because memory ran out"
    return "failed", f"the process ended without a record (exit code {code})"


def _close(slot: _Slot, display: Live, status: Status, message: str) -> None:
    """Leave a record for a process that could not leave its own."""
    slot.pipe.close()
    job, error = slot.job, Error(status, message, "")
    if not job.store.made_here(job.spec.run_id):
        job.store.write(empty_record(job.spec, job.store.suite, job.metrics, status, error))
        display.event(job.spec, {"event": "end", "status": status, "error": error})
