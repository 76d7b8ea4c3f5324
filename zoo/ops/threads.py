"""Work spread over torch's own threads, which wait for it awake: pieces of a loop, or chains of torch ops.

Between two ops torch's OpenMP threads spin for a while. Threads of our own would have to be woken, which takes longer
than many a kernel, and would share a core with those. So the work goes to the very same threads, through the function
that every `#pragma omp parallel` compiles to. Inside, torch counts itself as parallel and computes on one thread: what
one op leaves in a core's cache is there for the next, where ops that are spread one by one exchange their results.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def spread(work: Callable[[int, int], None], items: int, grain: int = 1) -> None:
    """Call `work(start, stop)` on pieces of range(items), one for each thread torch may use, at once.

    Pieces are multiples of `grain` long but for the last. `work` runs at once only where it lets go of the GIL: in
    kernels compiled with `nogil=True`, and in torch ops. It runs without gradients; autocast is a thread's own, so that
    it must not depend on that.

    Raises:
        BaseException: whatever `work` raised first.
    """
    work = torch.no_grad()(work)
    threads = min(torch.get_num_threads(), -(-items // grain))
    if threads <= 1:
        work(0, items)
        return
    team = _openmp()
    if team is None:
        _pooled(work, items, grain, threads)
        return
    errors: list[BaseException] = []

    def body(_: int | None) -> None:
        try:
            # The team may be smaller than asked for: it is one thread where we are inside of another already.
            pieces = _pieces(items, grain, team.omp_get_num_threads())
            number = team.omp_get_thread_num()
            if number < len(pieces):
                work(*pieces[number])
        except BaseException as error:  # a callback from C cannot raise
            errors.append(error)

    team.GOMP_parallel(_Body(body), None, threads, 0)
    if errors:
        raise errors[0]


def _pieces(items: int, grain: int, threads: int) -> list[tuple[int, int]]:
    """One for each thread, all of a size but for the last."""
    size = -(-items // (threads * grain)) * grain
    return [(start, min(start + size, items)) for start in range(0, items, size)]


@cache
def _openmp() -> Any:
    """The OpenMP runtime that torch has loaded; None where it is none of GNU's interface."""
    bundled = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    for place in (*map(str, bundled), None):
        with suppress(OSError, AttributeError, TypeError):
            team = ctypes.CDLL(place)
            team.GOMP_parallel.argtypes = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            team.GOMP_parallel.restype = None
            return team if team.omp_get_thread_num() == 0 and team.omp_get_num_threads() == 1 else None
    return None


def _pooled(work: Callable[[int, int], None], items: int, grain: int, threads: int) -> None:
    """`spread` over threads of our own."""
    first, *rest = _pieces(items, grain, threads)
    others = [_pool(os.getpid()).submit(work, *piece) for piece in rest]
    work(*first)
    for other in others:
        other.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: a fork inherits none."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="spread")
