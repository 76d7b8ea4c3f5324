"""Where numba keeps machine code: one folder per state of the sources, numba, Python and the CPU.

Numba recompiles a loop when the file it stands in changes, but not when a function that it calls from another file
does. So the folder is named by a hash of every source under `zoo/ops`, not by where they lie: all checkouts of the same
sources share it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.codegen import JITCodeLibrary, get_host_cpu_features
from numba.core.compiler import Compiler

from zoo.ops import forms

OPS = Path(__file__).parents[1]
KEPT = 3
"""Older folders that stay beside the current one."""
IN_USE = 3600.0
"""Seconds for which a folder that was used is left alone, however many there are."""

config: Any = numba.config


def keep(dispatcher: Any) -> Any:
    """Have numba keep the machine code of a compiled function in `folder`, if there is one."""
    if folder() is not None:
        dispatcher._cache = _Cache(dispatcher.py_func)
    return dispatcher


class OwnCopies(Compiler):
    """Compile a loop that calls its own copies of functions, whether it was just compiled or loaded.

    The module of a loop holds a copy of each function it calls, which LLVM optimised along with it. In the process that
    compiles them the linker would take the first function of that name instead, which rounds elsewhere.
    """

    def define_pipelines(self) -> Any:
        self.state.library = _Library(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()  # so that it can be kept
        return super().define_pipelines()


class _Library(JITCodeLibrary):
    def _finalize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage is binding.Linkage.linkonce_odr:
                function.linkage = "internal"
        super()._finalize_final_module()


class _Locator(_CacheLocator):
    """Where the machine code of a function is: numba's own locators put the path of its source into the name."""

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        self._py_file = source  # named in warnings of numba
        self.name = f"{function.__module__}-{function.__code__.co_firstlineno}"
        self.stamp = blake2b(Path(source).read_bytes()).digest()

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(folder())

    def get_source_stamp(self) -> bytes:
        """Of a function from elsewhere, which the folder's name does not cover, code of another file is stale."""
        return self.stamp

    def get_disambiguator(self) -> str:
        return self.name


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes = [_Locator]


class _Cache(FunctionCache):
    _impl_class = _CacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)
        for call in forms.on_compile if found is None else ():
            call()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):  # a full disk, say: the loop is compiled all the same
            super().save_overload(sig, data)


@cache
def folder() -> Path | None:
    """The folder of the current key, in the user's cache or else in the package; None, with a warning, where neither
    can be written. Folders of other keys that have not been used lately are removed."""
    home = os.environ.get("ZOOBENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "zoobench")
    for parent in (Path(home) / "kernels", OPS / "cpu" / "__pycache__" / "kernels"):
        try:
            place = parent.expanduser() / key()
            place.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
            os.utime(place)
        except (OSError, RuntimeError):  # RuntimeError: no home to expand
            continue
        _remove_old(place)
        return place
    warnings.warn(
        "no folder for compiled loops can be written, so each process compiles its own; ZOOBENCH_CACHE names one",
        stacklevel=2,
    )
    return None


@cache
def key() -> str:
    """A hash of all sources of `zoo.ops`, the versions of numba, LLVM and Python, and the CPU with its features."""
    digest = blake2b(digest_size=10)
    for path in sorted(OPS.rglob("*.py")):
        digest.update(f"{path.relative_to(OPS)}\n".encode() + path.read_bytes())
    cpu = binding.get_host_cpu_name(), get_host_cpu_features(), config.CPU_NAME, config.CPU_FEATURES
    digest.update(repr((numba.__version__, llvmlite.__version__, sys.version, cpu)).encode())
    return digest.hexdigest()


def _remove_old(current: Path) -> None:
    """Remove all but the `KEPT` folders last used beside the current one, except those in use."""
    with suppress(OSError):  # another process removes them too
        others = [other for other in current.parent.iterdir() if other.is_dir() and other != current]
        for other in sorted(others, key=os.path.getmtime)[:-KEPT]:
            if time.time() - os.path.getmtime(other) > IN_USE:
                shutil.rmtree(other, ignore_errors=True)
