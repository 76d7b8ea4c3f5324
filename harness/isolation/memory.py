"""Bounds on memory, and whose word it is that memory ran out.

A control group bounds all processes of a run together, and counts whom the kernel killed for it. Where none may be
made, each process has a bound on its data (RLIMIT_DATA), the supervisor adds them up, and the kernel's count of such
kills is the machine's.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
from pathlib import Path

import psutil

_LIMITS, _EVENTS = ("memory.max", "memory.limit_in_bytes"), ("memory.events", "memory.oom_control")
"""By the names of version 2, and of version 1 (Linux, Documentation/admin-guide)."""


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's if that has less."""
    bounds = [_number(folder / name) for folder in _own_groups() for name in _LIMITS]
    return min([psutil.virtual_memory().total, *filter(None, bounds)])


def bound_data(limit: int) -> None:
    """Have allocations of this process, and of each that it starts, fail beyond `limit` bytes."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def kills(group: Path | None = None) -> int:
    """How many processes of a control group, or of the machine, the kernel has killed because memory ran out."""
    files = [Path("/proc/vmstat")] if group is None else [group / name for name in _EVENTS]
    return sum(int(found[1]) for file in files if (found := re.search(r"^oom_kill (\d+)$", _text(file), re.M)))


class Group:
    """The control groups of one run: one in each hierarchy in which a group may be made, so perhaps none."""

    def __init__(self, limit: int | None) -> None:
        self.folders: list[Path] = []
        self.memory: Path | None = None
        """The one that bounds memory."""
        for own in _own_groups():
            for left in own.glob("zoobench-*"):  # by supervisors that were killed
                if not psutil.pid_exists(int(left.name.rpartition("-")[2])):
                    _remove(left)
            folder = own / f"zoobench-{os.getpid()}"
            with contextlib.suppress(OSError):
                folder.mkdir()
                self.folders.append(folder)
                for file in (folder / name for name in _LIMITS if limit and (folder / name).exists()):
                    file.write_text(str(limit))
                    self.memory = folder

    def add(self, process: int) -> None:
        """Move a process there, which takes the kernel some milliseconds."""
        for folder in self.folders:
            try:
                (folder / "cgroup.procs").write_text(str(process))
            except OSError:
                self.memory = None if folder == self.memory else self.memory

    def kill(self) -> None:
        """Kill every process in it at once, where the kernel can (Linux 5.14)."""
        for file in (folder / "cgroup.kill" for folder in self.folders):
            with contextlib.suppress(OSError):
                if file.exists():
                    file.write_text("1")

    def remove(self) -> None:
        """Remove it once its processes have ended."""
        for folder in self.folders:
            _remove(folder)


def _remove(folder: Path) -> None:
    for _ in range(20):
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(0.01)


def _own_groups() -> list[Path]:
    """The folders of this process's control groups: version 2's, and version 1's for memory."""
    found = []
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            mounts = ("memory",) if controllers else ("unified", ".")
            places = [Path("/sys/fs/cgroup", mount, path.lstrip("/")) for mount in mounts]
            found += [place for place in places if (place / "cgroup.procs").exists()][:1]
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None
