"""How loops are compiled: numba's `njit` with one set of flags, and an `exp` that vectorises.

LLVM vectorises an innermost loop over one-dimensional contiguous arrays whose parts are all written out in one function
(`inlined`), if what it stores to was allocated in that function and can overlap with nothing. So a loop goes through
time outside and channels inside, works on local arrays, and copies them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

FAST = {"nnan", "nsz", "arcp", "contract", "afn", "reassoc"}
"""LLVM's fast-math flags but `ninf`: infinities stay what they are."""


def loop(function: Callable[..., Any]) -> Any:
    """Compile a loop: no GIL, no bounds checks, IEEE infinities, cached on disk."""
    return njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a part of loops, written out where it is called: LLVM then sees which arrays cannot overlap."""
    return njit(inline="always", fastmath=FAST, error_model="numpy")(function)


def exp(x: float) -> float:
    """e^x inside a loop, in x's own precision; of float32 within 2 ulp, vectorised, and 0 below −87."""
    return math.exp(x)


@overload(exp, jit_options={"fastmath": FAST})
def _exp(x: Any) -> Any:
    return _exp32 if x == types.float32 else _exp64


def _exp64(x: Any) -> Any:
    return math.exp(x)


def _exp32(x: Any) -> Any:
    # x = n ln 2 + r with |r| ≤ ½ ln 2; e^r by its series, 2^n by putting n where the exponent is stored.
    c = min(max(x, np.float32(-87.0)), np.float32(88.5))
    n = np.floor(c * np.float32(1.4426950408889634) + np.float32(0.5))
    r = (c - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32(0) if x < np.float32(-87.0) else p * power
