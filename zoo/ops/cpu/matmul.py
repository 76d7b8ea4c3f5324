"""Matrix products inside compiled loops: in bfloat16 on the tiles of a CPU (`amx`) or its vectors (`avx512`), summed in
float32; in float32 on vectors.

In bfloat16 what stands on the right comes in pairs of rows, so that two numbers to be summed lie side by side:

    left    X (m, k) row by row
    right   X (k, n) as (k/2, n, 2): rows 2i and 2i + 1 interleaved

`pack_pairs` makes a right form of a left one. Read in words of two numbers, the left form of X transposed is the right
form of Xᵀ, and the other way round: `transpose_right` and `transpose_left`. All matrices are flat arrays, their sides
multiples of `SIDE`, and of `STEP` where they are summed over. Of float32 and float64 both forms are the matrix itself;
products of float64 are plain loops, for tests.
"""

from typing import Any

import numpy as np
from numba import types

from zoo.ops import forms
from zoo.ops.cpu import amx, avx512
from zoo.ops.cpu.amx import SIDE, STEP
from zoo.ops.cpu.avx512 import transpose_square
from zoo.ops.cpu.intrinsics import by_type
from zoo.ops.cpu.jit import called
from zoo.ops.cpu.simd import BYTES, lanes, load, store


def padded(size: int) -> int:
    """A multiple of `STEP`."""
    return -(-size // STEP) * STEP


@called
def aligned_zeros(size, kind):  # type: ignore[no-untyped-def]
    """Zeros in the dtype of `kind`, from the start of a line of the cache: what lies across two takes twice as long."""
    x = np.zeros(size + BYTES // kind.itemsize, kind.dtype)
    skip = (-np.int64(x.ctypes.data)) % BYTES // kind.itemsize
    return x[skip : skip + size]


def _on_tiles(x: Any) -> bool:
    """Whether arrays of that numba type are multiplied by `amx`."""
    return bool(x.dtype == types.uint16) and forms.has_tiles()


@by_type
def enter(kind: Any) -> Any:
    """Set up this thread's tiles for products of arrays like `kind`. Returns what was set up before, for `leave`."""
    return amx.enter if _on_tiles(kind) else lambda kind: np.zeros(0, np.uint8)


@by_type
def leave(before: Any, kind: Any) -> Any:
    """Set up the tiles as they were."""
    return amx.leave if _on_tiles(kind) else lambda before, kind: None


@by_type
def product(a: Any, b: Any, c: Any, m: Any, n: Any, k: Any, more: Any) -> Any:
    """c (m, n) ← a (m, k) b (k, n), on top of c if `more`; a left and b right."""
    if a.dtype == types.float64:
        return _product
    return amx.multiply if _on_tiles(a) else avx512.multiply


@by_type
def pack_pairs(x: Any, y: Any, m: Any, n: Any) -> Any:
    """Fill y with the right form of the left form x (m, n), and return it."""
    return _interleave_rows if x.dtype == types.uint16 else _copy


@by_type
def packed_pairs(x: Any, y: Any, m: Any, n: Any) -> Any:
    """As `pack_pairs`, or x itself where both forms are the same."""
    return _interleave_rows if x.dtype == types.uint16 else lambda x, y, m, n: x


@by_type
def transpose_right(x: Any, y: Any, m: Any, n: Any) -> Any:
    """Fill y with the right form of Xᵀ, of the left form x (m, n) of X, and return it."""
    size = _word(x)
    return lambda x, y, m, n: _transpose(x, y, m, n // size)


@by_type
def transpose_left(x: Any, y: Any, m: Any, n: Any) -> Any:
    """Fill y with the left form of Xᵀ, of the right form x (m, n) of X, and return it."""
    size = _word(x)
    return lambda x, y, m, n: _transpose(x, y, m // size, n)


@by_type
def rounded(x: Any, y: Any) -> Any:
    """x in the dtype of products: `narrow` to y, or x itself if it is of that dtype."""
    return _rounded if y.dtype == types.uint16 else lambda x, y: x


@called
def narrow(x, y):  # type: ignore[no-untyped-def]
    """Round x to y, in the dtype of products; as many numbers as a multiple of `SIDE`."""
    for i in range(0, len(y), lanes(x)):
        store(load(x, i), y, i)


def _rounded(x, y):  # type: ignore[no-untyped-def]
    narrow(x, y)
    return y


def _product(a, b, c, m, n, k, more):  # type: ignore[no-untyped-def]
    for i in range(m):
        row = c[i * n : i * n + n]
        if not more:
            row[:] = 0
        for p in range(k):
            weight, other = a[i * k + p], b[p * n : p * n + n]
            for j in range(n):
                row[j] += weight * other[j]


def _copy(x, y, m, n):  # type: ignore[no-untyped-def]
    for i in range(m * n):
        y[i] = x[i]
    return y


def _interleave_rows(x, y, m, n):  # type: ignore[no-untyped-def]
    words = y.view(np.uint32)
    for i in range(m // 2):
        even, odd = x[2 * i * n : 2 * i * n + n], x[2 * i * n + n : 2 * i * n + 2 * n]
        out = words[i * n : i * n + n]
        for j in range(n):
            out[j] = np.uint32(np.uint32(even[j]) | np.uint32(np.uint32(odd[j]) << np.uint32(16)))
    return y


def _word(x: Any) -> int:
    """Numbers that are transposed as one: two in bfloat16, 32 bits."""
    return 2 if x.dtype == types.uint16 else 1


@by_type
def _transpose(x: Any, y: Any, m: Any, n: Any) -> Any:
    """Fill y with the transpose of m × n words, and return it."""
    return _transpose_numbers if x.dtype == types.float64 else _transpose_squares


def _transpose_squares(x, y, m, n):  # type: ignore[no-untyped-def]
    size = 4 // x.itemsize
    for i in range(0, m, SIDE):
        for j in range(0, n, SIDE):
            transpose_square(x, size * (i * n + j), n, y, size * (j * m + i), m)
    return y


def _transpose_numbers(x, y, m, n):  # type: ignore[no-untyped-def]
    for i in range(m):
        for j in range(n):
            y[j * m + i] = x[i * n + j]
    return y
