"""Who works on a run: a lease in its folder, of the process that works on it, with its host and a heartbeat."""

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from harness.isolation.beat import beat
from zoo import files

PATIENCE = 5.0
"""Seconds to wait for another process to let go: one that was asked to stop, or only looks."""
HEARTBEAT, STALE = 10.0, 60.0
"""Seconds between two heartbeats, and from the last one until the lease of another host is void."""


class Taken(Exception):
    """Another process works on the run."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lease of a run while this is open. It ends with this process, and what it forks does not inherit it.

    The kernel keeps it, by a POSIX lock; where a file system has none, or hosts do not share them, heartbeats do.

    Raises:
        Taken: another process has it.
    """
    path = _path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path, os.O_CREAT) as file:
        end = time.monotonic() + PATIENCE
        while not _free(file, path):
            if time.monotonic() > end:
                raise Taken
            beat()
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"{socket.gethostname()} {os.getpid()}\n")
        file.flush()
        files.sweep(path.parent)
        over = threading.Event()
        threading.Thread(target=_keep_alive, args=(file, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()
            file.truncate(0)


def taken(folder: Path) -> bool:
    """Whether a process, of this or another host, holds the lease of a run."""
    path = _path(folder)
    try:
        with _open(path) as file:
            return not _free(file, path)
    except FileNotFoundError:
        return False


def _path(folder: Path) -> Path:
    return files.inside(folder, "checkpoint", "lock")


def _open(path: Path, flags: int = 0) -> TextIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o666), "r+")


def _free(file: TextIO, path: Path) -> bool:
    """Whether nobody had the lease in this file, which is ours then until the file is closed."""
    told = True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        told = False  # a file system without locks
    file.seek(0)
    host = file.read(1000).partition(" ")[0]
    file.seek(0)
    if host == "" or (told and host == socket.gethostname()):
        return True
    with tempfile.TemporaryFile(dir=path.parent) as now:  # by the clock of the file system
        return os.fstat(now.fileno()).st_mtime - os.fstat(file.fileno()).st_mtime > STALE


def _keep_alive(file: TextIO, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        with contextlib.suppress(OSError, ValueError):
            os.utime(file.fileno())
