"""Jobs in processes of their own, several at a time: what becomes of each, however it ends."""

import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Generic, Literal, Protocol, TypeVar

from harness.errors import UserError
from harness.isolation import tree
from harness.isolation.supervisor import GRACE, Bounds, Ended, Report
from harness.units import short

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OUTSIDE = (signal.SIGKILL, *STOPS, signal.SIGQUIT)
"""Signals that no fault of a model's sends."""
OUTPUT = "output.txt"
"""What a job printed, in its folder."""
LOOK = 2.0
"""Seconds between two looks at jobs that other processes do."""


class Job(Protocol):
    """Something to do in a process of its own, which leaves a result on disk."""

    @property
    def name(self) -> str:
        """What no other job of a pool is called."""

    @property
    def folder(self) -> Path:
        """Where what it prints is kept."""

    def taken(self) -> bool:
        """Whether another process does it."""

    def work(self, report: Report) -> None:
        """Do it, in the process.

        It reports `lost` with a message where not its model but the machine prevents it, and `taken` where another
        process does it.
        """

    def outcome(self) -> tuple[str, Any] | None:
        """The status and the error of its result; None while there is none."""

    def fail(self, status: str, kind: str, message: str) -> None:
        """Leave a result that says how it failed."""


class Handle(Protocol):
    """A job under way, as `Supervised` is one."""

    ended: Ended | None
    """How its process ended; None while it has not, or where nobody knows."""
    gone: bool
    """Whether it has ended, and all that it started with it."""

    def events(self) -> Iterator[dict[str, Any]]:
        """What it has reported since the last call."""

    def ask(self, what: Literal["stop", "kill"]) -> None:
        """Have it stop within some seconds, or at once."""

    def kill(self) -> None:
        """End it whatever it takes."""


class Executor(Protocol):
    """Where jobs are done."""

    @property
    def capacity(self) -> int:
        """How many may be under way."""

    def submit(self, job: Job, bounds: Bounds) -> Handle:
        """Start a job, within `bounds`, what it prints kept in its folder.

        Raises:
            OSError, EOFError: it cannot be started now.
        """

    def together(self) -> AbstractContextManager[Any]:
        """What jobs that are submitted one after the other are submitted in."""

    def wait(self, handles: Sequence[Any], seconds: float) -> None:
        """Wait until one of its handles may have news, `seconds` at most."""


J = TypeVar("J", bound=Job)


@dataclass
class _Slot(Generic[J]):
    job: J
    handle: Handle
    taken: bool = False
    """Whether it found another process that does it."""
    lost: str = ""
    """What the job says itself of why it could not end; no fault of its model."""
    told: bool = False
    """Whether it has told of its end."""


class Pool(Generic[J]):
    """Does jobs by an executor, each within `bounds`.

    A job that the machine ended (killed from outside, a full disk) is started again, at most `retries` times; one that
    its model ended has failed. One that another process does is left to it.

    Args:
        tell: is given every event of a job; the last is `end`, with a status and an error.
        say: is told what else the user should know.
    """

    def __init__(
        self,
        executor: Executor,
        bounds: Bounds,
        retries: int,
        *,
        tell: Callable[[J, dict[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self.executor, self.bounds, self.retries, self.tell, self.say = executor, bounds, retries, tell, say
        self.slots: list[_Slot[J]] = []
        self.taken: list[J] = []
        """What other processes do."""
        self.looked = 0.0
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
                while (queue or self.slots or self.taken) and not asked:
                    self._look_again(queue)
                    self._fill(queue)
                    queue[:0] = self._step()
            finally:
                self._stop(asked)
        if asked:
            raise KeyboardInterrupt(asked[0])
        return self.lost

    def _look_again(self, queue: list[J]) -> None:
        """Queue what others did when we last looked, every few seconds."""
        if self.taken and not queue and monotonic() > self.looked + LOOK:
            queue += self.taken
            self.taken, self.looked = [], monotonic()

    def _fill(self, queue: list[J]) -> None:
        """Start what is queued, as far as there is room."""
        if queue and len(self.slots) < self.executor.capacity:
            with self.executor.together():
                while queue and len(self.slots) < self.executor.capacity:
                    queue[:0] = self._start(queue.pop())  # again, after all others: it may be better then

    def _start(self, job: J) -> list[J]:
        try:
            if outcome := job.outcome():  # by another process, meanwhile
                self._tell_end(job, *outcome)
            elif job.taken():
                self._leave(job)
            else:
                self.slots.append(_Slot(job, self.executor.submit(job, self.bounds)))
        except (OSError, EOFError, UserError) as error:  # as when the fork server is gone; the next starts another
            return self._again(job, f"it cannot be started: {error}")
        return []

    def _leave(self, job: J) -> None:
        """Leave a job to the process that does it."""
        if not self.taken and not self.looked:
            self.say("another zoobench works on runs of this suite, which are left to it")
            self.looked = monotonic()
        self.taken.append(job)

    def _step(self) -> list[J]:
        """Wait for news and hear them; returns the jobs that are to be done again."""
        again: list[J] = []
        self.executor.wait([slot.handle for slot in self.slots], 0.5)
        for slot in list(self.slots):
            self._hear(slot)
            if slot.handle.gone:
                self.slots.remove(slot)
                again += self._close(slot)
        return again

    def _hear(self, slot: _Slot[J]) -> None:
        for event in slot.handle.events():
            if event["event"] == "lost":
                slot.lost = event["message"]
            elif event["event"] == "taken":
                slot.taken = True
            else:
                slot.told |= event["event"] == "end"
                self.tell(slot.job, event)

    def _close(self, slot: _Slot[J]) -> list[J]:
        """See to a job that ended: without a result it has failed, or is done again."""
        job, ended = slot.job, slot.handle.ended
        try:
            if job.outcome() is None:
                if slot.taken:
                    self._leave(job)
                    return []
                if ended is None or (why := _machine(ended, slot.lost)):
                    return self._again(job, why if ended else slot.lost or "its supervisor was killed")
                job.fail(_STATUS.get(ended.cause, "failed"), *_failure(ended, self.bounds))
            if not slot.told and (outcome := job.outcome()):
                self._tell_end(job, *outcome)
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
        self._tell_end(job, "lost", UserError(why))
        return []

    def _tell_end(self, job: J, status: str, error: Any) -> None:
        self.tell(job, {"event": "end", "status": status, "error": error})

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
            self.executor.wait([slot.handle for slot in self.slots], 0.2)
            for slot in self.slots:
                self._hear(slot)
            self.slots = [slot for slot in self.slots if not slot.handle.gone]
        for slot in self.slots:
            slot.handle.kill()
        self.slots.clear()

    def _ask(self, what: Any) -> None:
        for slot in self.slots:
            slot.handle.ask(what)


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
        most = f"{short(bounds.memory)}B of memory" if bounds.memory else "its share of the machine's memory"
        return "oom", f"killed because it needed more than {most} (limits.memory)"
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
