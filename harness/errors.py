"""The one error a user sees (what is wrong, where, what to do), and text from elsewhere as it may be shown."""

import re
import unicodedata
from pathlib import Path

LONGEST = 1000
"""Characters of the longest message; what is longer holds what somebody else wrote."""
_CONTROLS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what commands a terminal, turns the direction of writing, breaks lines or cannot be seen."""


def printable(text: str) -> str:
    """Text on one line without control characters: white space is a blank, anything else of them �."""
    if text.isprintable():
        return text
    shown = (" " if c.isspace() else "�" if unicodedata.category(c) in _CONTROLS else c for c in text)
    return "".join(shown)


def printable_lines(text: str) -> str:
    """Text without control characters but line breaks and tabs."""
    return re.sub(r"[^\n\t]+", lambda found: printable(found[0]), text)


def one_line(message: str) -> str:
    """A message without line breaks and control characters, and not longer than `LONGEST`."""
    shown = printable(" ".join(message.split()))
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


class UserError(Exception):
    """Bad input. The command line prints it without a traceback and exits with status 2."""

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None, key: str = "") -> None:
        self.message, self.file, self.line, self.key = one_line(message), file, line, key
        super().__init__(str(self))

    def __str__(self) -> str:
        where = "" if self.file is None else f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        key = f"{self.key[:LONGEST]}: " if self.key else ""
        return f"{printable(where + key)}{self.message}"


def os_error(error: OSError) -> str:
    """What the system refused, and on which file."""
    said = error.strerror or str(error) or type(error).__name__
    return one_line(said if error.filename is None else f"{error.filename}: {said[:1].lower()}{said[1:]}")


def no_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory; torch's is a RuntimeError."""
    said = isinstance(error, RuntimeError) and re.search(_NO_MEMORY, str(error))
    return bool(said) or isinstance(error, MemoryError)


_NO_MEMORY = "not enough memory|can't allocate memory|out of memory|STATUS_ALLOC_FAILED"
"""What torch's allocators (CPU and CUDA), CUDA itself, cuBLAS and cuDNN say."""
