"""A pool on this machine: each run in a fresh process under a supervisor, the cores divided among them."""

import contextlib
import multiprocessing.connection
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import psutil

from harness.errors import UserError
from harness.execute.progress import Live
from harness.execute.worker import Job, main
from harness.isolation import tree
from harness.isolation.memory import machine_memory
from harness.isolation.supervisor import GRACE, Bounds, Ended, Supervised
from harness.records.record import Error, Status, empty_record
from harness.records.spec import RunSpec
from harness.suite.schema import Limits
from harness.units import short

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OUTSIDE = (signal.SIGKILL, *STOPS, signal.SIGQUIT)
"""Signals that no fault of a model's sends."""
OUTPUT = "output.txt"
"""What a run printed, in its folder."""


def bounds(limits: Limits, workers: int) -> Bounds:
    """What each of several runs at a time may use."""
    memory = limits.memory or machine_memory() // workers
    return Bounds(limits.timeout, limits.stall, memory, limits.output)


@dataclass
class _Slot:
    job: Job
    process: Supervised
    lost: str = ""
    """What the run says itself of why it could not end; no fault of its model."""
    told: bool = False
    """Whether it has told of its end."""


class Pool:
    """Runs jobs, several at a time.

    A run that the machine ended (killed from outside, a full disk) goes on from its checkpoint, at most `retries`
    times; one that its model ended leaves a record of that.
    """

    def __init__(self, *, workers: int, bounds: Bounds, retries: int, display: Live) -> None:
        self.workers, self.bounds, self.retries, self.display = workers, bounds, retries, display
        self.slots: list[_Slot] = []
        self.retried: Counter[str] = Counter()
        self.lost: list[RunSpec] = []

    def run(self, jobs: Iterable[Job]) -> list[RunSpec]:
        """Run every job; returns the runs that the machine ended more than `retries` times, which have no record.

        Raises:
            KeyboardInterrupt: with the signal that asked for it. The runs under way wrote checkpoints or were killed.
        """
        queue = list(jobs)[::-1]
        with _asked_to_stop() as asked, _no_orphans():
            try:
                while (queue or self.slots) and not asked:
                    while queue and len(self.slots) < self.workers:
                        self._start(queue.pop(), queue)
                    queue += self._step()
            finally:
                self._stop(asked)
        if asked:
            raise KeyboardInterrupt(asked[0])
        return self.lost

    def _start(self, job: Job, queue: list[Job]) -> None:
        bounds = replace(self.bounds, log=job.store.run_folder(job.spec.run_id) / OUTPUT)
        try:
            self.slots.append(_Slot(job, Supervised(bounds, main, job)))
        except (OSError, EOFError) as error:  # the fork server is gone; the next start starts another
            queue += self._again(job, f"no process could be started ({error})")

    def _step(self) -> list[Job]:
        """Wait for news and hear them; returns the jobs that are to be run again."""
        again: list[Job] = []
        multiprocessing.connection.wait([slot.process.pipe for slot in self.slots], timeout=0.5)
        for slot in list(self.slots):
            self._hear(slot)
            if slot.process.gone:
                self.slots.remove(slot)
                again += self._close(slot)
        return again

    def _hear(self, slot: _Slot) -> None:
        for event in slot.process.events():
            if event["event"] == "lost":
                slot.lost = event["message"]
            else:
                slot.told |= event["event"] == "end"
                self.display.event(slot.job.spec, event)

    def _close(self, slot: _Slot) -> list[Job]:
        """See to a run that ended: where it left no record, leave one, or run it again."""
        job, ended, store = slot.job, slot.process.ended, slot.job.store
        try:
            if not store.made_here(job.spec.run_id):
                if why := _machine(ended, slot.lost):
                    return self._again(job, why)
                assert ended is not None
                error = Error(*_verdict(ended, self.bounds), "")
                store.write(empty_record(job.spec, store.suite, job.metrics, _STATUS.get(ended.cause, "failed"), error))
            if not slot.told and (record := store.read(job.spec.run_id)):
                self.display.event(job.spec, {"event": "end", "status": record.status, "error": record.error})
        except (OSError, UserError) as error:
            return self._again(job, f"its record cannot be kept: {error}")
        return []

    def _again(self, job: Job, why: str) -> list[Job]:
        self.retried[job.spec.run_id] += 1
        count = self.retried[job.spec.run_id]
        if count <= self.retries:
            message = f"{why}; tried again ({count} of {self.retries})"
            self.display.event(job.spec, {"event": "note", "message": message})
            return [job]
        self.lost.append(job.spec)
        self.display.event(job.spec, {"event": "end", "status": "lost", "error": Error("lost", why, "")})
        return []

    def _stop(self, asked: list[int]) -> None:
        """End what still runs, within a few seconds, whatever it does."""
        if self.slots:
            self.display.say(f"stopping: {len(self.slots)} run(s) write checkpoints; once more ends them at once")
        for slot in self.slots:
            slot.process.ask("stop")
        end, killed, once = time.monotonic() + GRACE + 3, False, len(asked)
        while self.slots and time.monotonic() < end:
            if len(asked) > max(once, 1) and not killed:
                killed = True
                for slot in self.slots:
                    slot.process.ask("kill")
            multiprocessing.connection.wait([slot.process.pipe for slot in self.slots], timeout=0.2)
            for slot in self.slots:
                self._hear(slot)
            self.slots = [slot for slot in self.slots if not slot.process.gone]
        for slot in self.slots:
            slot.process.kill()
        self.slots.clear()


def _machine(ended: Ended | None, said: str) -> str:
    """Why an end is no fault of the model's, which it may have said itself; empty where it is one."""
    if ended is None:
        return "its supervisor was killed"
    if ended.cause in _STATUS:
        return ""
    if ended.cause == "suspended":
        return "suspended from outside, or waiting for a disk"
    if said or ended.cause == "asked":
        return said or "asked to stop from outside"
    return f"killed from outside ({signal.Signals(-ended.code).name})" if -ended.code in OUTSIDE else ""


_STATUS: dict[str, Status] = {"timeout": "timeout", "stalled": "timeout", "memory": "oom"}
"""The status of a run that crossed one of its bounds."""


def _verdict(ended: Ended, bounds: Bounds) -> tuple[str, str]:
    """What ended a run that left no record, in a word and in a sentence."""
    if ended.cause == "timeout":
        return "timeout", f"stopped after {bounds.timeout:.0f} s of wall time"
    if ended.cause == "stalled":
        return "stalled", f"stopped without any progress for {bounds.stall:.0f} s or more (limits.stall)"
    if ended.cause == "memory":
        return "oom", f"killed because it needed more than {short(bounds.memory)}B of memory (limits.memory)"
    how = f"crashed ({signal.Signals(-ended.code).name})" if ended.code < 0 else f"exit code {ended.code}"
    return "failed", f"the process ended without a record: {how}; see {OUTPUT} in its folder"


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The signals that ask this process to stop, as they come; those that it ignores stay ignored."""
    asked: list[int] = []
    before = {}
    with contextlib.suppress(ValueError):  # not the main thread, which alone hears signals
        for number in STOPS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, lambda number, frame: asked.append(number))
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _no_orphans() -> Iterator[None]:
    """Adopt what the processes of killed supervisors leave behind, and kill it at the end."""
    here, session = psutil.Process(), os.getsid(0)
    before = {child.pid for child in here.children()}
    tree.adopt_orphans()
    try:
        yield
    finally:
        tree.adopt_orphans(False)
        for child in here.children():
            with contextlib.suppress(OSError, psutil.Error):
                if child.pid not in before and os.getsid(child.pid) != session:
                    child.kill()
                    child.wait(1)
