"""Compiled loops on torch's own threads, which wait awake between two ops.

Threads of our own would have to be woken, which takes longer than many a loop, and would share a core with torch's. So
the work goes to the very same ones, through the function that every `#pragma omp parallel` compiles to. Each of them
enters machine code at once and never meets Python, whose lock it would have to wait for.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run(kernel: Any, items: int, *arguments: Any, grain: int = 1) -> None:
    """`kernel(start, stop, *arguments)` on pieces of range(items), one for each thread torch may use, at once.

    Pieces are multiples of `grain` long but for the last. `kernel` is one of `zoo.ops.loops.loop`; arguments are
    C-contiguous arrays, integers, booleans and NumPy's floats.
    """
    threads, team = min(torch.get_num_threads(), -(-items // grain)), _openmp()
    if team is None:
        _pooled(lambda start, stop: kernel(start, stop, *arguments), items, grain, threads)
        return
    slots, kinds, kept = [items, grain], [], []
    for x in arguments:
        if isinstance(x, np.ndarray):
            assert x.flags.c_contiguous
            kinds.append(_Kind(x.dtype, x.ndim))
            slots += [_address(x), *x.shape]
        elif isinstance(x, np.floating):
            kept.append(np.array([x]))
            kinds.append(_Kind(x.dtype, None))
            slots.append(_address(kept[-1]))
        else:
            kinds.append(_Kind(np.dtype(type(x)), None))
            slots.append(int(x))
    packed, entry = np.array(slots, np.int64), _entry(kernel, tuple(kinds))
    if threads > 1:
        team.GOMP_parallel(entry, _address(packed), threads, 0)
    elif threads == 1:
        entry(_address(packed))  # faster than `kernel`, which counts who holds an array at every slice of it


class _Kind(NamedTuple):
    """Of an argument: an array with so many axes, or a number."""

    dtype: np.dtype
    axes: int | None


def _address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]


@cache
def _entry(kernel: Any, kinds: tuple[_Kind, ...]) -> Any:
    """What each thread of a team calls: it finds its piece and the arguments behind one address, and runs `kernel`."""
    from numba import carray, cfunc, types
    from numba.core.cgutils import voidptr_t
    from numba.extending import intrinsic

    @intrinsic
    def pointer(context, address):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.inttoptr(arguments[0], voidptr_t)

        return types.voidptr(types.int64), build

    read, at = [], 2
    for dtype, axes in kinds:
        name = f"{dtype.name}_"
        if axes is not None:
            shape = "".join(f"slots[{at + 1 + axis}], " for axis in range(axes))
            read.append(f"carray(pointer(slots[{at}]), ({shape}), {name})")
        elif dtype.kind == "f":
            read.append(f"carray(pointer(slots[{at}]), (1,), {name})[0]")
        else:
            read.append(f"slots[{at}] != 0" if dtype.kind == "b" else f"slots[{at}]")
        at += 1 + (axes or 0)
    # The team may be smaller than asked for: it is one thread where we are inside of another already.
    source = f"""
def entry(data):
    slots = carray(data, ({at},), int64_)
    piece = -(-slots[0] // (size() * slots[1])) * slots[1]
    start = number() * piece
    stop = min(start + piece, slots[0])
    if start < stop:
        kernel(start, stop, {", ".join(read)})
"""
    team = _openmp()
    names: dict[str, Any] = {"carray": carray, "pointer": pointer, "kernel": kernel, "int64_": np.int64}
    names |= {f"{kind.dtype.name}_": kind.dtype for kind in kinds}
    names |= {"size": team.omp_get_num_threads, "number": team.omp_get_thread_num}
    exec(source, names)
    compiled = cfunc(types.void(types.CPointer(types.int64)))(names["entry"])
    _alive.append(compiled)
    return _Body(compiled.address)


_alive: list[Any] = []
"""Machine code lives as long as the object that holds it."""


@cache
def _openmp() -> Any:
    """The OpenMP runtime that torch has loaded; None where it is none of GNU's interface."""
    bundled = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    for place in (*map(str, bundled), None):
        with suppress(OSError, AttributeError, TypeError):
            team = ctypes.CDLL(place)
            team.GOMP_parallel.argtypes = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            team.GOMP_parallel.restype = None
            for function in (team.omp_get_num_threads, team.omp_get_thread_num):
                function.argtypes, function.restype = [], ctypes.c_int
            return team
    return None


def _pooled(work: Callable[[int, int], None], items: int, grain: int, threads: int) -> None:
    """`work` on the pieces of `run`, over threads of our own."""
    size = -(-items // (max(threads, 1) * grain)) * grain
    starts = range(size, items, max(size, 1))
    others = [_pool(os.getpid()).submit(work, start, min(start + size, items)) for start in starts]
    work(0, min(size, items))
    for other in others:
        other.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: a fork inherits none."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="compiled")
