"""A process and all that descends from it: adopted when orphaned, ended whole."""

import contextlib
import ctypes
import os
import signal
import sys
import time

import psutil

_PDEATHSIG, _CHILD_SUBREAPER = 1, 36
"""Options of prctl (Linux, include/uapi/linux/prctl.h)."""


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
