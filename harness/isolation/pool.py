"""Jobs in processes of their own, several at a time: what becomes of each, however it ends."""

import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from harness.errors import UserError
from harness.isolation import tree
from harness.isolation.supervisor import GRACE, Bounds, Ended, Report, Supervised
from harness.units import short

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OUTSIDE = (signal.SIGKILL, *STOPS, signal.SIGQUIT)
"""Signals that no fault of a model's sends."""
OUTPUT = "output.txt"
"""What a job printed, in its folder."""


class Job(Protocol):
    """Something to do in a process of its own, which leaves a result on disk."""

    @property
    def name(self) -> str:
        """What no other job of a pool is called."""

    @property
    def folder(self) -> Path:
        """Where what it prints is kept."""

    def work(self, report: Report) -> None:
        """Do it, in the process. It reports `lost` with a message where not its model but the machine prevents it."""

    def outcome(self) -> tuple[str, Any] | None:
        """The status and the error of its result; None while there is none."""

    def fail(self, status: str, kind: str, message: str) -> None:
        """Leave a result that says how it failed."""


J = TypeVar("J", bound=Job)


@dataclass
class _Slot(Generic[J]):
    job: J
    process: Supervised
    lost: str = ""
    """What the job says itself of why it could not end; no fault of its model."""
    told: bool = False
    """Whether it has told of its end."""


class Pool(Generic[J]):
    """Does jobs, `workers` at a time, each within `bounds`.

    A job that the machine ended (killed from outside, a full disk) is started again, at most `retries` times; one that
    its model ended has failed.

    Args:
        tell: is given every event of a job; the last is `end`, with a status and an error. say: is told what else the
            user should know.
    """

    def __init__(
        self,
        *,
        workers: int,
        bounds: Bounds,
        retries: int,
        tell: Callable[[J, dict[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self.workers, self.bounds, self.retries, self.tell, self.say = workers, bounds, retries, tell, say
        self.slots: list[_Slot[J]] = []
        self.retried: Counter[str] = Counter()
        self.lost: list[J] = []

    def run(self, jobs: Iterable[J]) -> list[J]:
        """Do every job; returns those that the machine ended more than `retries` times, which have no result.

        Raises:
            KeyboardInterrupt: with the signal that asked for it. The jobs under way were asked to stop, or killed.
        """
        queue = list(jobs)[::-1]
        with _asked_to_stop() as asked, tree.no_orphans():
            try:
                while (queue or self.slots) and not asked:
                    while queue and len(self.slots) < self.workers:
                        queue[:0] = self._start(queue.pop())  # again, after all others: the machine may be better then
                    queue[:0] = self._step()
            finally:
                self._stop(asked)
        if asked:
            raise KeyboardInterrupt(asked[0])
        return self.lost

    def _start(self, job: J) -> list[J]:
        try:
            process = Supervised(replace(self.bounds, log=job.folder / OUTPUT), job.work)
        except (OSError, EOFError) as error:  # the fork server is gone; the next start starts another
            return self._again(job, f"no process could be started ({error})")
        self.slots.append(_Slot(job, process))
        return []

    def _step(self) -> list[J]:
        """Wait for news and hear them; returns the jobs that are to be done again."""
        again: list[J] = []
        wait([slot.process.pipe for slot in self.slots], timeout=0.5)
        for slot in list(self.slots):
            self._hear(slot)
            if slot.process.gone:
                self.slots.remove(slot)
                again += self._close(slot)
        return again

    def _hear(self, slot: _Slot[J]) -> None:
        for event in slot.process.events():
            if event["event"] == "lost":
                slot.lost = event["message"]
            else:
                slot.told |= event["event"] == "end"
                self.tell(slot.job, event)

    def _close(self, slot: _Slot[J]) -> list[J]:
        """See to a job that ended: without a result it has failed, or is done again."""
        job, ended = slot.job, slot.process.ended
        try:
            if job.outcome() is None:
                if ended is None:
                    tree.kill_adopted(spare={slot.process.process.pid for slot in self.slots})
                    return self._again(job, "its supervisor was killed")
                if why := _machine(ended, slot.lost):
                    return self._again(job, why)
                job.fail(_STATUS.get(ended.cause, "failed"), *_failure(ended, self.bounds))
            if not slot.told and (outcome := job.outcome()):
                self.tell(job, {"event": "end", "status": outcome[0], "error": outcome[1]})
        except (OSError, UserError) as error:
            return self._again(job, f"its result cannot be kept: {error}")
        return []

    def _again(self, job: J, why: str) -> list[J]:
        self.retried[job.name] += 1
        count = self.retried[job.name]
        if count <= self.retries:
            self.tell(job, {"event": "note", "message": f"{why}; tried again ({count} of {self.retries})"})
            return [job]
        self.lost.append(job)
        self.tell(job, {"event": "end", "status": "lost", "error": UserError(why)})
        return []

    def _stop(self, asked: list[int]) -> None:
        """End what still runs, within a few seconds, whatever it does."""
        if self.slots:
            self.say(f"stopping: {len(self.slots)} write checkpoints; once more ends them at once")
        self._ask("stop")
        end, once = monotonic() + GRACE + 2, len(asked)
        while self.slots and monotonic() < end:
            if len(asked) > max(once, 1):
                once = len(asked)
                self._ask("kill")
            wait([slot.process.pipe for slot in self.slots], timeout=0.2)
            for slot in self.slots:
                self._hear(slot)
            self.slots = [slot for slot in self.slots if not slot.process.gone]
        for slot in self.slots:
            slot.process.kill()
        self.slots.clear()

    def _ask(self, what: Any) -> None:
        for slot in self.slots:
            slot.process.ask(what)


def _machine(ended: Ended, said: str) -> str:
    """Why an end is no fault of the model's, which it may have said itself; empty where it is one."""
    if ended.cause in _STATUS:
        return ""
    if ended.cause == "suspended":
        return "suspended from outside, or waiting for a disk"
    if said or ended.cause == "asked":
        return said or "asked to stop from outside"
    return f"killed from outside ({signal.Signals(-ended.code).name})" if -ended.code in OUTSIDE else ""


_STATUS = {"timeout": "timeout", "stalled": "timeout", "memory": "oom"}
"""The status of a job that crossed one of its bounds."""


def _failure(ended: Ended, bounds: Bounds) -> tuple[str, str]:
    """What ended a job that left no result, in a word and in a sentence."""
    if ended.cause == "timeout":
        return "timeout", f"stopped after {bounds.timeout:.0f} s of wall time (limits.timeout)"
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
