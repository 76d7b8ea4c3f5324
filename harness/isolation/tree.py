"""A process and all that descends from it: adopted when orphaned, ended whole."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator

import psutil

from harness.processes import STARTED_BY

_PDEATHSIG, _CHILD_SUBREAPER = 1, 36
"""Options of prctl (Linux, include/uapi/linux/prctl.h)."""


@contextlib.contextmanager
def no_orphans() -> Iterator[None]:
    """Adopt what the processes of killed supervisors leave behind, and kill it at the end."""
    adopt_orphans()
    try:
        yield
    finally:
        kill_adopted()
        adopt_orphans(False)


def adopt_orphans(adopt: bool = True) -> None:
    """Become the parent of every descendant whose own parent ends, so that none gets out of sight. Linux only."""
    _prctl(_CHILD_SUBREAPER, int(adopt))


def die_with(parent: int) -> None:
    """Have this process killed when its parent, of this id, ends. Linux only."""
    _prctl(_PDEATHSIG, signal.SIGKILL)
    if sys.platform == "linux" and os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def kill_descendants(seconds: float = 3.0) -> None:
    """Kill what descends from this process, and what that starts meanwhile, for as long as it takes up to `seconds`."""
    end = time.monotonic() + seconds
    while _has_children() and time.monotonic() < end:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.01)


def kill_adopted(spare: Collection[int] = (), seconds: float = 3.0) -> None:
    """Kill what killed supervisors left to this process, with all that descends from it; not the processes `spare`."""
    end = time.monotonic() + seconds
    while (left := _adopted(spare)) and time.monotonic() < end:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=0.1)


def _adopted(spare: Collection[int]) -> list[psutil.Process]:
    found, here = list[psutil.Process](), psutil.Process()
    for child in here.children():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended
            if child.pid not in spare and os.getsid(child.pid) != os.getsid(0):
                ending = not child.memory_info().rss  # what it started comes here next, and its environment is gone
                if ending or child.environ().get(STARTED_BY) == str(here.pid):
                    found += [child, *child.children(recursive=True)]
    return found


def _has_children() -> bool:
    """Whether this process has children still, after it has let go of those that ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def memory_of_descendants() -> int:
    """Bytes of resident memory of all that descends from this process."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total
