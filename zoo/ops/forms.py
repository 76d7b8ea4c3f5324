"""Where compiled loops run, and how they are called from torch: tensors as arrays.

A recurrence with no matrix-product form runs as a loop that numba compiles, beside its op as `compiled.py`. Numba takes
a while to load, so that such a module is imported when `supports` first says that it can be used. See `zoo.ops.cpu.jit`.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.ops import flops

DTYPES = (torch.float32, torch.float64)
KINDS = (*DTYPES, torch.bfloat16)
"""What passes read and write: bfloat16 as it lies, computed in float32."""
FEW = 1 << 13
"""Of fewer numbers, as in a step of decoding, calling a loop takes longer than what it saves of torch's ops."""


@cache
def available() -> bool:
    """Whether numba is installed and not turned off by `ZOOBENCH_COMPILED=0`."""
    return os.environ.get("ZOOBENCH_COMPILED", "1") != "0" and find_spec("numba") is not None


@cache
def has_tiles() -> bool:
    """Whether this CPU multiplies bfloat16 matrices tile by tile (AMX), and Linux lets this process do so.

    `ZOOBENCH_TILES=0` leaves them to torch.
    """
    probe, ask = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_init_amx"))
    return os.environ.get("ZOOBENCH_TILES", "1") != "0" and bool(probe and ask and probe() and ask())


@cache
def _can(instructions: str) -> bool:
    probe = getattr(torch.cpu, f"_is_{instructions}_supported", None)
    return bool(probe and probe())


def matmul_backend(dtype: torch.dtype) -> str | None:
    """What compiled loops multiply matrices on, see `zoo.ops.cpu.matmul`: "matrix tiles", "vectors", or None where slow.

    A block of sums needs more registers than CPUs without AVX-512 have.
    """
    if dtype is torch.bfloat16:
        return "matrix tiles" if has_tiles() else "vectors" if _can("avx512_bf16") else None
    return "vectors" if dtype is torch.float32 and _can("avx512") else None


def supports(*tensors: Tensor | None) -> bool:
    """Whether compiled loops can compute on these: numba is here, and they are real float32 or float64 on the CPU."""
    there = [t for t in tensors if t is not None]
    return available() and all(t.device.type == "cpu" and t.dtype in DTYPES for t in there)


def worth_fusing(*tensors: Tensor | None) -> bool:
    """Whether one compiled pass over these is faster than several of torch's: as `supports`, by `KINDS`, and no `FEW`."""
    there = [t for t in tensors if t is not None]
    return available() and there[0].numel() > FEW and all(t.device.type == "cpu" and t.dtype in KINDS for t in there)


def has_matmul_kernel(dtype: torch.dtype, *tensors: Tensor | None) -> bool:
    """Whether compiled loops can multiply what these hold in `dtype`, fast: see `matmul_backend`.

    Not while FLOPs are counted: torch's counter sees products of torch alone.
    """
    there = [t for t in tensors if t is not None]
    free = all(t.device.type == "cpu" for t in there) and not flops.counting()
    return free and available() and matmul_backend(dtype) is not None


def array(x: Tensor) -> NDArray[Any]:
    """`x` as a C-contiguous NumPy array over the same memory where it is contiguous, and a copy where it is not."""
    return x.detach().contiguous().numpy()
