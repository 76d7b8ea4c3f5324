"""Where numba keeps machine code: one folder per state of the sources, numba, Python and the CPU.

A loop calls functions of other files, so the file it stands in does not tell whether its machine code is current. The
key is a hash of every source under `zoo/ops`, and all clones of one state share a folder.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
import time
import warnings
from hashlib import blake2b
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.codegen import get_host_cpu_features

OPS = Path(__file__).parents[1]
KEPT = 3
"""Older folders that stay beside the current one."""
IN_USE = 3600.0
"""Seconds for which a folder that was used is left alone, however many there are."""


@functools.cache
def key() -> str:
    """A hash of all sources of `zoo.ops`, the versions of numba, LLVM and Python, and the CPU with its features."""
    seen = blake2b(digest_size=10)
    for path in sorted(OPS.rglob("*.py")):
        seen.update(f"{path.relative_to(OPS)}\n".encode() + path.read_bytes())
    config: Any = numba.config
    cpu = config.CPU_NAME, config.CPU_FEATURES, get_host_cpu_features()
    seen.update(repr((numba.__version__, llvmlite.__version__, sys.version_info[:2], sys.abiflags, cpu)).encode())
    return seen.hexdigest()


@functools.cache
def folder() -> Path | None:
    """The folder of the current key, in the user's cache or else in the package; None, with a warning, where neither
    can be written. Folders of other keys that have not been used lately are removed."""
    home = os.environ.get("ZOOBENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "zoobench")
    for place in (Path(home).expanduser() / "kernels", OPS / "cpu" / "__pycache__" / "kernels"):
        try:
            own = place / key()
            own.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=own).close()
            os.utime(own)
        except (OSError, RuntimeError):  # RuntimeError: no home to expand
            continue
        _remove_old(place, own)
        return own
    warnings.warn(
        "no folder for compiled loops can be written, so each process compiles its own; ZOOBENCH_CACHE names one",
        stacklevel=2,
    )
    return None


def _remove_old(place: Path, own: Path) -> None:
    """Remove all but the `KEPT` folders last used, except those in use."""
    others = [other for other in place.iterdir() if other.is_dir() and other != own]
    aged = sorted(((_used(other), other) for other in others), reverse=True)
    for used, other in aged[KEPT:]:
        if time.time() - used > IN_USE:
            shutil.rmtree(other, ignore_errors=True)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process removed it
        return 0.0


class Locator:
    """What numba asks where a function's machine code is (NUMBA_CACHE_LOCATOR_CLASSES); see `folder`."""

    def __init__(self, function: Any, file: str) -> None:
        self.line, self.name = function.__code__.co_firstlineno, Path(file).stem

    @classmethod
    def from_function(cls, function: Any, file: str) -> Locator:
        return cls(function, file)

    def get_cache_path(self) -> str:
        return str(folder())

    def ensure_cache_path(self) -> None:
        os.makedirs(self.get_cache_path(), exist_ok=True)

    def get_source_stamp(self) -> str:
        return key()

    def get_disambiguator(self) -> str:
        return str(self.line)
