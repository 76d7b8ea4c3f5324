"""How loops are compiled: numba's `njit` with one set of flags, and functions that vectorise, `exp` above all.

LLVM vectorises an innermost loop over one-dimensional contiguous arrays whose parts are all written out in one function
(`inlined`), if what it stores to was allocated in that function and can overlap with nothing. So a loop goes through
time outside and channels inside, works on local arrays, and copies them out.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.core.codegen import get_host_cpu_features
from numba.extending import overload

from zoo.ops import forms
from zoo.ops.cpu import cache

if cache.config.DISABLE_JIT:
    raise ImportError("numba is told to compile nothing (NUMBA_DISABLE_JIT)")
if cache.config.CPU_FEATURES is None and forms.matmul_backend(torch.bfloat16):
    # LLVM fills half a register, as older CPUs slow down where whole ones are in use; those with bfloat16 do not.
    # Whether there are tiles is among the features, which tell apart the machine code of loops.
    features = get_host_cpu_features() + ",-prefer-256-bit"
    cache.config.CPU_FEATURES = features + ("" if forms.has_tiles() else ",-amx-tile,-amx-bf16")

_SERIES = 1.5403530393381608e-4, 1.3333558146428443e-3, 9.618129107628477e-3, 5.550410866482158e-2
EXP2 = tuple(map(np.float32, (*_SERIES, 2.402265069591007e-1, 6.931471805599453e-1, 1.0)))
"""The series of 2^r for |r| ≤ ½, from r⁶ down."""

FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
"""LLVM's fast-math flags but `ninf` and `nnan`: infinities and NaN stay what they are."""


njit: Any = numba.njit  # whose types lack the options of wrappers


def loop(function: Callable[..., Any]) -> Any:
    """Compile a loop, without the GIL and bounds checks, and keep its machine code (`zoo.ops.cpu.cache`)."""
    options = {"nogil": True, "no_cfunc_wrapper": True, "pipeline_class": cache.OwnCopies}
    return cache.keep(njit(**options, fastmath=FAST, error_model="numpy")(function))


def called(function: Callable[..., Any]) -> Any:
    """Compile a function that loops call. It has no cache of its own: LLVM can inline it only where it was compiled in
    the same process, and a loop's last digits must not depend on what was on disk when it was compiled."""
    return njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=FAST, error_model="numpy")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a part of loops, written out where it is called: LLVM then sees which arrays cannot overlap."""
    return njit(inline="always", fastmath=FAST, error_model="numpy")(function)


def _in_float32(function: Callable[..., Any], flags: set[str] = FAST) -> Callable[[Any], Any]:
    """Decorate what loops call as `function` of a float32 number; of others they call `function` itself."""

    def register(of32: Any) -> Any:
        @overload(function, jit_options={"fastmath": flags, "error_model": "numpy"})
        def _by_type(x: Any) -> Any:
            return of32 if x in (types.float32, types.int32) else function

        return of32

    return register


# min and max of numba's return their first argument where it is NaN: x goes first.


def exp(x: Any) -> Any:
    """e^x inside a loop, in x's own precision; of float32 within 2 ulp, vectorised, and 0 below −86.6."""
    return math.exp(x)


@_in_float32(exp)
def _exp32(x: Any) -> Any:
    # x = n ln 2 + r with |r| ≤ ½ ln 2; 2 e^r by its series, 2^{n−1} by putting n − 1 where the exponent is stored.
    c = min(max(x, np.float32(-86.6)), np.float32(89))
    n = np.floor(c * np.float32(1.4426950408889634) + np.float32(0.5))
    r = (c - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    p = np.float32(2 / 5040) * r + np.float32(2 / 720)
    p = (p * r + np.float32(2 / 120)) * r + np.float32(2 / 24)
    p = (p * r + np.float32(2 / 6)) * r + np.float32(1)
    p = (p * r + np.float32(2)) * r + np.float32(2)
    power = np.int32((np.int32(n) + np.int32(126)) << np.int32(23)).view(np.float32)
    return np.float32(0) if x < np.float32(-86.6) else p * power


def exp2(x: Any) -> Any:
    """2^x inside a loop, in x's own precision; of float32 vectorised, 0 below −126.5 and ∞ from 127.5 on."""
    return math.exp(x * math.log(2))


@_in_float32(exp2)
def _exp2_32(x: Any) -> Any:
    # x = n + r with |r| ≤ ½; 2^r by its series, 2^n by putting n where the exponent is stored (−127: 0, 128: ∞).
    c = min(max(x, np.float32(-127)), np.float32(128))
    n = np.floor(c + np.float32(0.5))
    r = c - n
    p = EXP2[0] * r + EXP2[1]
    p = (p * r + EXP2[2]) * r + EXP2[3]
    p = (p * r + EXP2[4]) * r + EXP2[5]
    return (p * r + EXP2[6]) * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^{−x}) inside a loop, in x's own precision; of float32 vectorised."""
    return 1 / (1 + math.exp(-x))


@_in_float32(sigmoid)
def _sigmoid32(x: Any) -> Any:
    return np.float32(1) / (np.float32(1) + exp2(x * np.float32(-1 / math.log(2))))


def softplus(x: Any) -> Any:
    """ln(1 + e^x) inside a loop, in x's own precision; of float32 vectorised."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@_in_float32(softplus)
def _softplus32(x: Any) -> Any:
    return max(x, np.float32(0)) + log1p(exp2(abs(x) * np.float32(-1 / math.log(2))))


def log1p(x: Any) -> Any:
    """ln(1 + x) for x from 0 to 1 inside a loop, in x's own precision; vectorised in float32."""
    return math.log1p(x)


@_in_float32(log1p)
def _log1p32(x: Any) -> Any:
    # 2 artanh(s) with s = x / (2 + x) ≤ 1/3, by its series.
    s = x / (np.float32(2) + x)
    q = s * s
    p = np.float32(1 / 15) * q + np.float32(1 / 13)
    p = (p * q + np.float32(1 / 11)) * q + np.float32(1 / 9)
    p = (p * q + np.float32(1 / 7)) * q + np.float32(1 / 5)
    p = (p * q + np.float32(1 / 3)) * q + np.float32(1)
    return np.float32(2) * s * p


def rsqrt(x: Any) -> Any:
    """1 / √x inside a loop, 0 for ∞: LLVM's estimate under fast-math flags would be NaN."""
    return 1 / math.sqrt(x)


@_in_float32(rsqrt, flags=set())
def _rsqrt32(x: Any) -> Any:
    return np.float32(1) / np.sqrt(x)


def rank(x: Any) -> Any:
    """An integer in the order of the floats, NaN above all, of which LLVM finds the greatest many at a time."""
    bits = np.float64(x).view(np.int64)
    return np.int64(0x7FFFFFFFFFFFFFFF) if x != x else bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)


@_in_float32(rank)
def _rank32(x: Any) -> Any:
    bits = np.float32(x).view(np.int32)
    return np.int32(0x7FFFFFFF) if x != x else np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


def ranked(x: Any) -> Any:
    """The float of that rank."""
    return np.int64(x ^ ((x >> 63) & 0x7FFFFFFFFFFFFFFF)).view(np.float64)


@_in_float32(ranked)
def _ranked32(x: Any) -> Any:
    return np.int32(x ^ ((x >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@called
def copy(x, y):  # type: ignore[no-untyped-def]
    """x into y, as far as the shorter goes: numba's own assignment of slices is slow, to compile as well."""
    for i in range(min(len(x), len(y))):
        y[i] = x[i]


@called
def copy_rows(x, y):  # type: ignore[no-untyped-def]
    """Rows of x into those of y."""
    for i in range(len(y)):
        copy(x[i], y[i])


@inlined
def maximum(a, b):  # type: ignore[no-untyped-def]
    """The greater of two numbers; NaN where either is."""
    return a if (a > b) | (a != a) else b


@inlined
def exps(x, y):  # type: ignore[no-untyped-def]
    """e^x of each element of x into y."""
    for i in range(len(y)):
        y[i] = exp(x[i])
