"""The machine a run is on: device, precision, memory, and the words a record keeps about it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import platform
import re
import time
import weakref
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError

_chosen = "auto"


def choose(name: str) -> None:
    """Have this process, and those it starts, use a device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: there is no such device here.
    """
    global _chosen
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"no device is called {name!r}; use auto, cpu, cuda or cuda:N", file="--device")
    if name.startswith("cuda"):
        count, number = torch.cuda.device_count(), int(name.partition(":")[2] or 0)
        if number >= count:
            here = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
            raise UserError(f"there is no {name} on this machine; there is {here}", file="--device")
    _chosen = name


def chosen() -> str:
    """What `choose` was told last; `auto` where it was not."""
    return _chosen


def cards() -> list[str]:
    """The GPUs that runs may compute on, as `CUDA_VISIBLE_DEVICES` names them; none where they use the CPU."""
    count = 0 if _chosen == "cpu" else torch.cuda.device_count()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",")[:count] if seen else [str(number) for number in range(count)]
    number = _chosen.partition(":")[2]
    return [names[int(number)]] if number else names


def settle(device: str, card: str | None) -> None:
    """Have this process, a new one, use what another has chosen; of the GPUs only `card`, or several with
    commas between, where it is named.

    It does not touch CUDA, of which a process that forks another must have nothing loaded.
    """
    global _chosen
    _chosen = device if card is None else "cuda"
    if card is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = card


def pick() -> torch.device:
    """The chosen device, made the current one; by default CUDA where there is one, otherwise the CPU.

    On CUDA what computes in float32 then does so in full, recurrent layers and convolutions too.
    """
    device = torch.device(_chosen if _chosen != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False
    return device


def native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products run in hardware, rather than being emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("aarch64", "arm64"):  # elsewhere oneDNN counts emulation; a Mac's torch is without it
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def resolve_precision(wish: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware has it, else fp32."""
    return wish if wish != "auto" else "bf16" if native_bf16(device) else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in bf16 if `precision` says so; parameters, sums and states stay fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run with so many threads of torch, at most one per core; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(count or before, os.cpu_count() or 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def warm_up(device: torch.device) -> None:
    """Load what torch loads on first use (autograd's threads, the optimiser's compiler hooks), so that a run's memory
    and first step do not pay for it; and keep the memory that a step frees for the next one."""
    keep_memory()
    layer = torch.nn.Linear(8, 8).to(device)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    with FlopCounterMode(display=False), torch.autocast(device.type, dtype=torch.bfloat16):
        layer(torch.zeros(8, 8, device=device)).float().sum().backward()
    optimizer.step()


def matmul_speed(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """FLOP/s of a square matrix product that is large for the device, the best of several."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        a @ a
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def random_state(device: torch.device) -> list[torch.Tensor]:
    """The state of torch's random numbers on the CPU, and on the device where it has its own."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_state(device: torch.device, states: list[torch.Tensor]) -> None:
    """Go on from what `random_state` returned."""
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1].cpu(), device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release() -> None:
    """Give freed memory back to the system, where the C library can (glibc); what is freed from now on is kept."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    keep_memory()


def keep_memory() -> None:
    """Have the C library (glibc) keep freed memory while the process lives, but for what `release` gives back.

    Otherwise every step's tensors go back to the system, which clears each page of them again for the next step: a
    tenth of a step's time of most models, and half of one that makes large tensors in torch ops. The memory that is
    kept uses huge pages where Linux grants them: TLB misses on small ones cost 2 to 5% of a step.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        most, span = (1 << 31) - 1, 3 << 29
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes, libc.madvise.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        libc.mallopt(_TRIM_THRESHOLD, most)
        libc.mallopt(_MMAP_THRESHOLD, most)
        if ahead := libc.malloc(span):  # addresses only: what nobody touches takes no memory
            page = mmap.PAGESIZE
            libc.madvise(-(-ahead // page) * page, span - page, _HUGE_PAGES)
            libc.free(ahead)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of mallopt, from malloc.h."""
_HUGE_PAGES = 14
"""Of madvise, from mman.h."""


class PeakMemory(TorchDispatchMode):
    """The most bytes of tensors that were alive at once while this was open: `peak`.

    On a GPU that is torch's own count. On a CPU each tensor that an op returns is counted until it is freed. Resident
    memory would tell what the process keeps, which depends on how freed blocks were cut up, and on what was compiled.

    Args:
        optimizer: its parameters, their gradients and its state were there before.
    """

    def __init__(self, device: torch.device, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.device, self.peak = device, 0
        self._now, self._storages = 0, dict[int, Any]()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = [parameters, [parameter.grad for parameter in parameters], list(optimizer.state.values())]
        tree_map_only(torch.Tensor, self._add, state)

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        if self.device.type == "cuda":
            self.peak = int(torch.cuda.max_memory_allocated(self.device))

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return tree_map_only(torch.Tensor, self._add, op(*args, **(kwargs or {})))

    def _add(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()  # of shards, those that are here
        if id(storage) not in self._storages:
            self._storages[id(storage)] = weakref.ref(storage, partial(self._remove, id(storage), storage.nbytes()))
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
        return tensor

    def _remove(self, key: int, size: int, _: Any) -> None:
        del self._storages[key]
        self._now -= size


@cache
def hardware(device_type: str) -> str:
    """The device in words, the same for every run on one machine: `AMD EPYC, 2 cores`."""
    if device_type == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        known = re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = known[1].strip() if known else name
    return f"{name}, {os.cpu_count()} cores"
