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

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from zoo.ops import forms
from zoo.ops.cpu import amx, avx512
from zoo.ops.cpu.amx import SIDE, STEP, enter_tiles, leave_tiles
from zoo.ops.cpu.avx512 import transpose_square
from zoo.ops.cpu.jit import FAST, inlined
from zoo.ops.cpu.simd import BYTES, load, store


def padded(size: int) -> int:
    """A multiple of `STEP`."""
    return -(-size // STEP) * STEP


@inlined
def aligned_zeros(size, kind):  # type: ignore[no-untyped-def]
    """Zeros in the dtype of `kind`, from the start of a line of the cache: what lies across two takes twice as long."""
    x = np.zeros(size + BYTES // kind.itemsize, kind.dtype)
    skip = (-np.int64(x.ctypes.data)) % BYTES // kind.itemsize
    return x[skip : skip + size]


def narrow(x: Any, y: Any) -> None:
    """Round x to y, in the dtype of products; as many numbers as a multiple of `SIDE`."""
    raise NotImplementedError("for loops only")


def rounded(x: Any, y: Any) -> Any:
    """x in the dtype of products: y, which is filled by `narrow`, or x itself if it is of that dtype."""
    raise NotImplementedError("for loops only")


def enter(kind: Any) -> Any:
    """Set up this thread's tiles for products of arrays like `kind`. Returns what was set up before, for `leave`."""
    raise NotImplementedError("for loops only")


def leave(before: Any, kind: Any) -> None:
    """Set up the tiles as they were."""
    raise NotImplementedError("for loops only")


def product(a: Any, b: Any, c: Any, m: int, n: int, k: int, more: bool) -> None:
    """c (m, n) ← a (m, k) b (k, n), on top of c if `more`; a left and b right."""
    raise NotImplementedError("for loops only")


def pack_pairs(x: Any, y: Any, m: int, n: int) -> None:
    """The right form y of the left form x (m, n)."""
    raise NotImplementedError("for loops only")


def packed_pairs(x: Any, y: Any, m: int, n: int) -> Any:
    """The right form of the left form x (m, n): y, which is filled by `pack_pairs`, or x itself if it is both."""
    raise NotImplementedError("for loops only")


def transpose_right(x: Any, y: Any, m: int, n: int) -> None:
    """The right form y of Xᵀ, of the left form x (m, n) of X."""
    raise NotImplementedError("for loops only")


def transpose_left(x: Any, y: Any, m: int, n: int) -> None:
    """The left form y of Xᵀ, of the right form x (m, n) of X."""
    raise NotImplementedError("for loops only")


def _narrow(x, y):  # type: ignore[no-untyped-def]
    for i in range(0, len(y), SIDE):
        store(load(x, i), y, i)


def _copy(x, y):  # type: ignore[no-untyped-def]
    for i in range(len(y)):
        y[i] = x[i]


def _narrowed(x, y):  # type: ignore[no-untyped-def]
    narrow(x, y)
    return y


def _product_plain(a, b, c, m, n, k, more):  # type: ignore[no-untyped-def]
    for i in range(m):
        row = c[i * n : i * n + n]
        if not more:
            row[:] = 0
        for p in range(k):
            weight, other = a[i * k + p], b[p * n : p * n + n]
            for j in range(n):
                row[j] += weight * other[j]


def _interleave_rows(x, y, m, n):  # type: ignore[no-untyped-def]
    words = y.view(np.uint32)
    for i in range(m // 2):
        even, odd = x[2 * i * n : 2 * i * n + n], x[2 * i * n + n : 2 * i * n + 2 * n]
        out = words[i * n : i * n + n]
        for j in range(n):
            out[j] = np.uint32(np.uint32(even[j]) | np.uint32(np.uint32(odd[j]) << np.uint32(16)))


def _interleaved(x, y, m, n):  # type: ignore[no-untyped-def]
    pack_pairs(x, y, m, n)
    return y


def _copy_matrix(x, y, m, n):  # type: ignore[no-untyped-def]
    for i in range(m * n):
        y[i] = x[i]


def _transpose_row_words(x, y, m, n):  # type: ignore[no-untyped-def]
    """m rows of n/2 words."""
    words = n // 2
    for i in range(0, m, SIDE):
        for j in range(0, words, SIDE):
            transpose_square(x, 2 * (i * words + j), words, y, 2 * (j * m + i), m)


def _transpose_pair_words(x, y, m, n):  # type: ignore[no-untyped-def]
    """m/2 rows of n words."""
    pairs = m // 2
    for i in range(0, pairs, SIDE):
        for j in range(0, n, SIDE):
            transpose_square(x, 2 * (i * n + j), n, y, 2 * (j * pairs + i), pairs)


def _transpose_words(x, y, m, n):  # type: ignore[no-untyped-def]
    for i in range(0, m, SIDE):
        for j in range(0, n, SIDE):
            transpose_square(x, i * n + j, n, y, j * m + i, m)


def _transpose_plain(x, y, m, n):  # type: ignore[no-untyped-def]
    for i in range(m):
        for j in range(n):
            y[j * m + i] = x[i * n + j]


def _bf16(x: Any) -> bool:
    return bool(x.dtype == types.uint16)


def _on_tiles(x: Any) -> bool:
    return _bf16(x) and forms.has_tiles()


def _product(a: Any) -> Any:
    return _product_plain if a.dtype == types.float64 else amx.multiply if _on_tiles(a) else avx512.multiply


def _transpose(x: Any, of_bf16: Any) -> Any:
    return of_bf16 if _bf16(x) else _transpose_words if x.dtype == types.float32 else _transpose_plain


overload(narrow)(lambda x, y: _narrow if _bf16(y) else _copy)
overload(rounded)(lambda x, y: _narrowed if _bf16(y) else lambda x, y: x)
overload(enter)(lambda kind: (lambda kind: enter_tiles()) if _on_tiles(kind) else lambda kind: np.zeros(0, np.uint8))
overload(leave)(
    lambda before, kind: (lambda before, kind: leave_tiles(before)) if _on_tiles(kind) else lambda before, kind: None
)
overload(product, jit_options={"fastmath": FAST})(lambda a, b, c, m, n, k, more: _product(a))
overload(pack_pairs)(lambda x, y, m, n: _interleave_rows if _bf16(x) else _copy_matrix)
overload(packed_pairs)(lambda x, y, m, n: _interleaved if _bf16(x) else lambda x, y, m, n: x)
overload(transpose_right)(lambda x, y, m, n: _transpose(x, _transpose_row_words))
overload(transpose_left)(lambda x, y, m, n: _transpose(x, _transpose_pair_words))
