"""Fresh processes on this machine: how many, how they start, and what they need of the caller."""

import contextlib
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

STARTED_BY = "ZOOBENCH_STARTED_BY"
"""In the environment of the fork server, and so of all that descends from it: the process that started it."""


def default_workers() -> int:
    """One worker for each core this process may use: small models train fastest on one thread each."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def context() -> Any:
    """Processes forked from a server that has torch loaded already."""
    # glibc hands freed activations back to the system and faults them in again, step after step; let it keep them
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**31 - 1))
    # OpenMP's idle threads wait busily for milliseconds, on the cores that our compiled loops then want (libgomp)
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # it begins as `python -c`, which looks for multiprocessing itself in the working directory first (Python 3.11)
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # else asking for GPUs loads CUDA, and forks break
    server = multiprocessing.get_context("forkserver")
    # AdamW's first step imports torch._dynamo, 800 modules: here once for all runs
    server.set_forkserver_preload(
        ["harness.execute.worker", "harness.isolation.supervisor", "torch._dynamo", "harness.execute.preload"]
    )
    return server


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python from looking for cycles to free: records have none, and it would look through millions of objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()  # nor later, while they are there
            gc.enable()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep multiprocessing from running the caller's script again in each process: workers need only `main`."""
    space = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: space.pop(name) for name in ("__file__", "__spec__") if name in space}
    space["__spec__"] = None
    try:
        yield
    finally:
        space.update(hidden)


def launch(target: Callable[..., None], *args: Any, duplex: bool = False, card: str | None = None) -> tuple[Any, Any]:
    """A fresh process running `target(*args, pipe)` on the device chosen here, and our end of the pipe.

    Args:
        card: the GPU that it may see, of `machine.cards`, or several with commas between.
    """
    from harness import machine

    fresh = context()
    ours, theirs = fresh.Pipe(duplex=duplex)
    process = fresh.Process(target=_begin, args=(machine.chosen(), card, target, *args, theirs), daemon=False)
    os.environ[STARTED_BY] = str(os.getpid())
    try:
        with without_main():
            process.start()
    finally:
        os.environ.pop(STARTED_BY, None)
    theirs.close()
    return process, ours


def _begin(device: str, card: str | None, target: Callable[..., None], *args: Any) -> None:
    from harness import machine

    machine.settle(device, card)
    target(*args)
