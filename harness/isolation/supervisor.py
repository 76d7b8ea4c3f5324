"""A process with a supervisor: what it may use, how it is stopped, and the word on how it ended.

The caller starts a supervisor, which forks the process, is the leader of its session and adopts whatever it leaves
behind. The supervisor passes events on, keeps what is printed, and ends all of it when a bound is crossed, when it is
told to, or when the caller is gone. A process whose supervisor is killed dies with it (Linux).
"""

import contextlib
import math
import os
import pickle
import signal
import sys
import time
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from mmap import mmap
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeAlias

import psutil

from harness.isolation import beat, memory, tree
from harness.isolation.output import Output
from harness.processes import launch

GRACE = 4.0
"""Seconds between asking a process to stop and killing it."""
TICK = 0.5
"""Seconds between two looks at the bounds."""
SUMS = 2.0
"""Seconds between two sums of memory, each of which looks at every process of the machine."""
PATIENCE = 5
"""A process is stalled if it shows no sign of life for this many times the longest that it has ever needed."""

MOST = 1 << 24
"""Bytes of the longest event."""

Report: TypeAlias = Callable[[dict[str, Any]], None]
Cause: TypeAlias = Literal["", "timeout", "stalled", "memory", "suspended", "asked"]


@dataclass(frozen=True)
class Bounds:
    """What a supervised process may use; None for as much as it likes."""

    timeout: float | None = None
    """Seconds from its start."""
    stall: float | None = None
    """Seconds without a `beat`, unless it has needed a `PATIENCE`th of that between two before."""
    memory: int | None = None
    """Bytes, of the process and all it starts."""
    output: int = 1_000_000
    """Bytes of what it prints that are kept."""
    log: Path | None = None
    """Where they are kept."""


@dataclass(frozen=True)
class Ended:
    """How a supervised process ended."""

    code: int
    """Its exit code; negative for a signal."""
    cause: Cause
    """Why its supervisor ended it; empty where it ended by itself, or somebody else ended it."""


class Supervised:
    """A process as its caller sees it.

    Args:
        target: called as `target(*args, report)` in the process, which ends when that returns.
        card: the GPU that it may see, or several with commas between.
    """

    alive: ClassVar[set[int]] = set()
    """The supervisors that this process has started and that have not ended."""

    def __init__(self, bounds: Bounds, target: Callable[..., None], *args: Any, card: str | None = None) -> None:
        self.process, self.pipe = launch(_supervise, bounds, target, args, duplex=True, card=card)
        self.alive.add(self.process.pid)
        self.ended: Ended | None = None
        """Set when it has ended, unless its supervisor was killed."""
        self.gone = False
        """Whether it has ended, and all that it started with it."""

    def events(self) -> Iterator[dict[str, Any]]:
        """What it has reported since the last call."""
        try:
            while not self.gone and self.pipe.poll():
                said = self.pipe.recv()
                if isinstance(said, Ended):
                    self.ended = said
                else:
                    yield said
        except (EOFError, OSError):
            self.gone = True
            self.alive.discard(self.process.pid)
            self.pipe.close()
            if self.ended is None:
                self.process.join(1)  # then what a killed supervisor leaves has been adopted
                tree.kill_adopted(spare=self.alive)
            with contextlib.suppress(OSError):
                os.waitpid(self.process.pid, os.WNOHANG)  # it is a child of ours once the fork server was killed

    def ask(self, what: Literal["stop", "kill"]) -> None:
        """Have it stop within `GRACE` seconds, or at once."""
        with contextlib.suppress(OSError):
            self.pipe.send(what)

    def kill(self) -> None:
        """Kill the supervisor itself, and with it the process."""
        with contextlib.suppress(OSError):
            os.kill(self.process.pid, signal.SIGKILL)


def _supervise(bounds: Bounds, target: Callable[..., None], args: tuple[Any, ...], caller: Connection) -> None:
    """The supervisor's process."""
    os.setsid()
    tree.adopt_orphans()
    group, page = memory.Group(bounds.memory), beat.new_page()
    (events, report), (output, written), supervisor = os.pipe(), os.pipe(), os.getpid()
    run = os.fork()
    if run == 0:
        caller.close()
        os.close(events)
        os.close(output)
        tree.die_with(supervisor)
        if bounds.memory and not group.memory:
            memory.bound_data(bounds.memory)
        beat.share(page)
        _work(target, args, _reporter(report), written)
    os.close(report)
    os.close(written)
    group.add(run)
    _Supervisor(bounds, group, page, run, caller, events, output).watch()


def _reporter(pipe: int) -> Report:
    """Sends each event as a line of its own: what else the process writes there is none, and stands before it."""
    file = os.fdopen(pipe, "wb")

    def report(event: dict[str, Any]) -> None:
        file.write(b"\n" + b64encode(pickle.dumps(event)) + b"\n")
        file.flush()

    return report


def _work(target: Callable[..., None], args: tuple[Any, ...], report: Report, output: int) -> NoReturn:
    """The supervised process: no thread that `target` leaves behind keeps it from ending."""
    os.setpgid(0, 0)
    for own, place in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(own, place)
    code = 0
    try:
        target(*args, report)
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


class _Supervisor:
    """The state of a supervisor while its process runs."""

    def __init__(self, bounds: Bounds, group: memory.Group, page: mmap, run: int, *pipes: Any) -> None:
        self.bounds, self.group, self.page, self.run = bounds, group, page, run
        self.caller, self.events, self.output = pipes
        self.log = Output(bounds.log, bounds.output)
        self.kills = memory.kills(group.memory)
        self.started = self.beaten = self.summed = time.monotonic()
        self.beats, self.longest = 0, 0.0
        self.cause: Cause = ""
        self.deadline: float | None = None
        """When it is killed, once it was asked to stop."""
        self.line = b""
        """The beginning of an event that is still being written."""
        self.waited = {self.caller: self._listen, self.events: self._pass_on, self.output: self._keep}
        if hasattr(os, "pidfd_open"):  # else one is told at the next tick
            self.waited[os.pidfd_open(run)] = lambda: None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop("asked"))

    def watch(self) -> None:
        """Pass on and keep what the process says, see that it keeps to its bounds, and tell how it ended."""
        while not (ended := os.waitpid(self.run, os.WNOHANG))[0]:
            for ready in wait([*self.waited], timeout=TICK):
                self.waited[ready]()
            self._check(time.monotonic())
        self.deadline = math.inf  # there is nobody left to stop
        self.group.kill()
        tree.kill_descendants()
        for pipe, read in ((self.events, self._pass_on), (self.output, self._keep)):
            while pipe in self.waited and wait([pipe], timeout=0):
                read()
        self.log.close()
        code = os.waitstatus_to_exitcode(ended[1])
        if self.cause in ("", "stalled") and memory.kills(self.group.memory) > self.kills:
            self.cause = "memory"
        with contextlib.suppress(OSError):
            self.caller.send(Ended(code, self.cause))
            self.caller.close()
        self.group.remove()

    def _listen(self) -> None:
        """Do as the caller says; without one, stop."""
        try:
            asked = self.caller.recv()
        except (EOFError, OSError):
            asked = "stop"
            del self.waited[self.caller]
        if asked == "kill":
            self._kill("asked")
        else:
            self._stop("asked")

    def _pass_on(self) -> None:
        if not (said := os.read(self.events, 1 << 16)):
            del self.waited[self.events]
        *lines, self.line = (self.line[-MOST:] + said).split(b"\n")
        for line in lines:
            with contextlib.suppress(Exception):  # no event at all, or nobody to tell
                self.caller.send(pickle.loads(b64decode(line, validate=True)))

    def _keep(self) -> None:
        if said := os.read(self.output, 1 << 16):
            self.log.add(said)
        else:
            del self.waited[self.output]

    def _check(self, now: float) -> None:
        if self.deadline is not None:
            if now > self.deadline:
                self._kill(self.cause)
            return
        if self.bounds.timeout is not None and now - self.started > self.bounds.timeout:
            self._stop("timeout")
        if self.bounds.memory and not self.group.memory and now > self.summed + SUMS:
            self.summed = now
            if tree.memory_of_descendants() > self.bounds.memory:
                self._kill("memory")
        self._check_beat(now)

    def _check_beat(self, now: float) -> None:
        beats, silent = beat.count(self.page), now - self.beaten
        if beats != self.beats:
            self.beats, self.beaten, self.longest = beats, now, max(self.longest, silent)
        elif self.bounds.stall is not None and silent > max(self.bounds.stall, PATIENCE * self.longest):
            waits = (psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP)
            self._stop("suspended" if psutil.Process(self.run).status() in waits else "stalled")

    def _stop(self, cause: Cause) -> None:
        """Ask the process to stop; it is killed if it does not."""
        if self.deadline is None:
            self.cause, self.deadline = cause, time.monotonic() + GRACE
            os.kill(self.run, signal.SIGTERM)

    def _kill(self, cause: Cause) -> None:
        self.cause, self.deadline = cause, math.inf
        self.group.kill()
        os.kill(self.run, signal.SIGKILL)
