"""What a process prints, kept in a file that cannot grow without bound."""

import contextlib
import os
from pathlib import Path
from typing import BinaryIO


class Output:
    """The first and the last half of `most` bytes, in `file`; no file where nothing is printed."""

    def __init__(self, file: Path | None, most: int) -> None:
        self.file, self.half = file, most // 2
        self.first = self.total = 0
        self.last = b""
        self.handle: BinaryIO | None = None

    def add(self, data: bytes) -> None:
        """Keep what was printed."""
        head, tail = data[: self.half - self.first], data[self.half - self.first :]
        self.first, self.total = self.first + len(head), self.total + len(data)
        self._write(head)
        self.last = (self.last + tail)[-self.half :]

    def close(self) -> None:
        """Write the end of it."""
        if missing := self.total - self.first - len(self.last):
            self._write(f"\n[... {missing:,} bytes left out ...]\n".encode())
        self._write(self.last)
        if self.handle is not None:
            self.handle.close()

    def _write(self, data: bytes) -> None:
        """What cannot be written is lost, and stops no run."""
        if not data or self.file is None:
            return
        with contextlib.suppress(OSError):
            if self.handle is None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait
                self.handle = os.fdopen(os.open(self.file, flags, 0o644), "wb", buffering=0)
            self.handle.write(data)
