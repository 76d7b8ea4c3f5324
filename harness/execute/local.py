"""A pool on this machine: each run in a fresh process, the cores divided among them."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from harness.execute.worker import Job, main
from harness.spec import RunSpec, build_task
from harness.store import Store
from harness.train import skeleton


class Display(Protocol):
    """What the pool tells of its runs."""

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None: ...


@dataclass
class _Slot:
    job: Job
    process: Any
    pipe: Any
    started: float
    ended: dict[str, Any] | None = None


def default_workers() -> int:
    """One worker for each core this process may use: small models train fastest on one thread each."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def context() -> Any:
    """Processes forked from a server that has torch loaded already; spawned where the system cannot fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    # glibc hands freed activations back to the system and faults them in again, step after step; let it keep them
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**31 - 1))
    # OpenMP's idle threads wait busily for milliseconds, on the cores that our compiled loops then want (libgomp)
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["harness.execute.worker"])
    return server


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep multiprocessing from running the caller's script again in each process: workers need only `main`."""
    space = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: space.pop(name) for name in ("__file__", "__spec__") if name in space}
    space["__spec__"] = None
    try:
        yield
    finally:
        space.update(hidden)


def run(jobs: Iterable[Job], *, workers: int, timeout: float | None, display: Display) -> None:
    """Do every job. On KeyboardInterrupt the runs under way write checkpoints before it goes on up."""
    queue, slots = list(jobs)[::-1], list[_Slot]()
    try:
        while queue or slots:
            while queue and len(slots) < workers:
                job = queue.pop()
                slots.append(_Slot(job, *launch(main, job), time.monotonic()))
            ready = multiprocessing.connection.wait(
                [s.pipe for s in slots] + [s.process.sentinel for s in slots], timeout=0.5
            )
            for slot in list(slots):
                if slot.pipe in ready:
                    _drain(slot, display.event)
                if timeout is not None and time.monotonic() - slot.started > timeout and slot.process.is_alive():
                    slot.process.kill()
                    slot.process.join()
                    _drain(slot, display.event)
                    _close(slot, display, "timeout", f"stopped after {timeout:.0f} s of wall time")
                    slots.remove(slot)
                elif not slot.process.is_alive():
                    _drain(slot, display.event)
                    _close(slot, display, *_cause(slot.process.exitcode))
                    slots.remove(slot)
    finally:
        for slot in slots:
            slot.process.terminate()
        for slot in slots:
            slot.process.join(60)


def launch(target: Callable[..., None], *args: Any, duplex: bool = False) -> tuple[Any, Any]:
    """A fresh process running `target(*args, pipe)`, and our end of the pipe."""
    fresh = context()
    ours, theirs = fresh.Pipe(duplex=duplex)
    process = fresh.Process(target=target, args=(*args, theirs), daemon=False)
    with without_main():
        process.start()
    theirs.close()
    return process, ours


def _drain(slot: _Slot, tell: Callable[[RunSpec, dict[str, Any]], None]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while slot.pipe.poll():
            event = slot.pipe.recv()
            if event["event"] == "end":
                slot.ended = event
            tell(slot.job.spec, event)


def _cause(code: int | None) -> tuple[str, str]:
    if code == -9:
        return "oom", "the process was killed, most likely because memory ran out"
    return "failed", f"the process ended without a record (exit code {code})"


def _close(slot: _Slot, display: Display, status: str, message: str) -> None:
    """Leave a record for a process that could not leave its own."""
    slot.pipe.close()
    if slot.ended is not None:
        return
    spec, task = slot.job.spec, build_task(slot.job.spec)
    store = Store(slot.job.suite, slot.job.root)
    if store.finished(spec.run_id(task.fingerprint), published={}):
        return
    error = {"kind": status, "message": message, "where": ""}
    store.write(skeleton(spec, slot.job.suite, task, status, error))
    display.event(spec, {"event": "end", "status": status, "error": error})
