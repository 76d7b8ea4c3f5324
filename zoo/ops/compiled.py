"""Where compiled loops run, and how they are called from torch: tensors as arrays.

A recurrence with no matrix-product form runs as a loop that numba compiles, beside its op as `compiled.py`. Numba takes
a while to load, so that such a module is imported when `serves` first says that it can be used. See `zoo.ops.loops`.
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
    """Whether this CPU multiplies bfloat16 matrices tile by tile (AMX), and Linux lets this process do so."""
    probe, ask = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_init_amx"))
    return bool(probe and ask and probe() and ask())


def serves(*tensors: Tensor | None) -> bool:
    """Whether compiled loops can compute on these: numba is here, and they are real float32 or float64 on the CPU."""
    there = [t for t in tensors if t is not None]
    return available() and all(t.device.type == "cpu" and t.dtype in DTYPES for t in there)


def passes(*tensors: Tensor | None) -> bool:
    """Whether one compiled pass over these is faster than several of torch's: as `serves`, by `KINDS`, and no `FEW`."""
    there = [t for t in tensors if t is not None]
    return available() and there[0].numel() > FEW and all(t.device.type == "cpu" and t.dtype in KINDS for t in there)


def multiplies(*tensors: Tensor | None) -> bool:
    """Whether compiled loops can multiply these in bfloat16 on matrix tiles: see `zoo.ops.tiles`.

    Not while FLOPs are counted: torch's counter sees products of torch alone.
    """
    there = [t for t in tensors if t is not None]
    return all(t.device.type == "cpu" for t in there) and not flops.counting() and available() and has_tiles()


def array(x: Tensor) -> NDArray[Any]:
    """`x` as a C-contiguous NumPy array over the same memory where it is contiguous, and a copy where it is not."""
    return x.detach().contiguous().numpy()
