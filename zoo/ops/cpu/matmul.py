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

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Backend(NamedTuple):
    """What stands behind the functions of loops below."""

    enter: Callable[..., Any]
    leave: Callable[..., Any]
    product: Callable[..., Any]
    pack_pairs: Callable[..., Any]
    transpose_right: Callable[..., Any]
    transpose_left: Callable[..., Any]


def backend(x: Any) -> Backend:
    """What multiplies arrays of that numba type."""
    if x.dtype == types.uint16:
        return TILES if forms.has_tiles() else BF16
    return FLOAT32 if x.dtype == types.float32 else FLOAT64


@by_type
def enter(kind: Any) -> Any:
    """Set up this thread's tiles for products of arrays like `kind`. Returns what was set up before, for `leave`."""
    return backend(kind).enter


@by_type
def leave(before: Any, kind: Any) -> Any:
    """Set up the tiles as they were."""
    return backend(kind).leave


@by_type
def product(a: Any, b: Any, c: Any, m: Any, n: Any, k: Any, more: Any) -> Any:
    """c (m, n) ← a (m, k) b (k, n), on top of c if `more`; a left and b right."""
    return backend(a).product


@by_type
def pack_pairs(x: Any, y: Any, m: Any, n: Any) -> Any:
    """Fill y with the right form of the left form x (m, n), and return it."""
    return backend(x).pack_pairs


@by_type
def packed_pairs(x: Any, y: Any, m: Any, n: Any) -> Any:
    """As `pack_pairs`, or x itself where both forms are the same."""
    return _interleave_rows if x.dtype == types.uint16 else lambda x, y, m, n: x


@by_type
def transpose_right(x: Any, y: Any, m: Any, n: Any) -> Any:
    """Fill y with the right form of Xᵀ, of the left form x (m, n) of X, and return it."""
    return backend(x).transpose_right


@by_type
def transpose_left(x: Any, y: Any, m: Any, n: Any) -> Any:
    """Fill y with the left form of Xᵀ, of the right form x (m, n) of X, and return it."""
    return backend(x).transpose_left


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


@called
def _transpose_words(x, y, rows, columns):  # type: ignore[no-untyped-def]
    """Words of 32 bits: a number in float32, or two in bfloat16."""
    size = 4 // x.itemsize
    for i in range(0, rows, SIDE):
        for j in range(0, columns, SIDE):
            transpose_square(x, size * (i * columns + j), columns, y, size * (j * rows + i), rows)
    return y


def _transpose(x, y, m, n):  # type: ignore[no-untyped-def]
    for i in range(m):
        for j in range(n):
            y[j * m + i] = x[i * n + j]
    return y


BF16 = Backend(
    enter=lambda kind: np.zeros(0, np.uint8),
    leave=lambda before, kind: None,
    product=avx512.multiply,
    pack_pairs=_interleave_rows,
    transpose_right=lambda x, y, m, n: _transpose_words(x, y, m, n // 2),
    transpose_left=lambda x, y, m, n: _transpose_words(x, y, m // 2, n),
)
TILES = BF16._replace(enter=amx.enter, leave=amx.leave, product=amx.multiply)
FLOAT32 = BF16._replace(
    pack_pairs=_copy,
    transpose_right=lambda x, y, m, n: _transpose_words(x, y, m, n),
    transpose_left=lambda x, y, m, n: _transpose_words(x, y, m, n),
)
FLOAT64 = FLOAT32._replace(product=_product, transpose_right=_transpose, transpose_left=_transpose)
