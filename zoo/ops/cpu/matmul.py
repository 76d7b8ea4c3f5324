"""Matrix products inside compiled loops: in bfloat16 on the tiles of a CPU (`tiles`) or by its `vectors`, summed in
float32; in float32 by vectors.

In bfloat16 what stands on the right comes in pairs of rows, so that two numbers to be summed lie side by side:

    left    X (m, k) row by row
    right   X (k, n) as (k/2, n, 2): rows 2i and 2i + 1 woven into one

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
    """y, in the dtype of products, of x; as many numbers as a multiple of `SIDE`."""
    raise NotImplementedError("for loops only")


def rounded(x: Any, y: Any) -> Any:
    """x in the dtype of products: y, which is filled by `narrow`, or x itself if it is of that dtype."""
    raise NotImplementedError("for loops only")


def enter(kind: Any) -> Any:
    """Set up this thread's tiles for products of arrays like `kind`; what was set up before, for `leave`."""
    raise NotImplementedError("for loops only")


def leave(before: Any, kind: Any) -> None:
    """Set the tiles up as they were."""
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


def _narrow(x: Any, y: Any) -> Any:
    for i in range(0, len(y), SIDE):
        store(load(x, i), y, i)


def _narrow_plain(x: Any, y: Any) -> Any:
    for i in range(len(y)):
        y[i] = x[i]


def _rounded(x: Any, y: Any) -> Any:
    narrow(x, y)
    return y


def _exact(x: Any, y: Any) -> Any:
    return x


def _enter(kind: Any) -> Any:
    return enter_tiles()


def _enter_plain(kind: Any) -> Any:
    return np.zeros(0, np.uint8)


def _leave(before: Any, kind: Any) -> Any:
    leave_tiles(before)


def _leave_plain(before: Any, kind: Any) -> Any:
    pass


def _product_plain(a: Any, b: Any, c: Any, m: int, n: int, k: int, more: bool) -> Any:
    for i in range(m):
        row = c[i * n : i * n + n]
        if not more:
            row[:] = 0
        for p in range(k):
            weight, line = a[i * k + p], b[p * n : p * n + n]
            for j in range(n):
                row[j] += weight * line[j]


def _weave(x: Any, y: Any, m: int, n: int) -> Any:
    words = y.view(np.uint32)
    for i in range(m // 2):
        even, odd = x[2 * i * n : 2 * i * n + n], x[2 * i * n + n : 2 * i * n + 2 * n]
        out = words[i * n : i * n + n]
        for j in range(n):
            out[j] = np.uint32(np.uint32(even[j]) | np.uint32(np.uint32(odd[j]) << np.uint32(16)))


def _weave_plain(x: Any, y: Any, m: int, n: int) -> Any:
    for i in range(m * n):
        y[i] = x[i]


def _woven(x: Any, y: Any, m: int, n: int) -> Any:
    pack_pairs(x, y, m, n)
    return y


def _either(x: Any, y: Any, m: int, n: int) -> Any:
    return x


def _turn(x: Any, y: Any, m: int, n: int) -> Any:
    words = n // 2
    for i in range(0, m, SIDE):
        for j in range(0, words, SIDE):
            transpose_square(x, 2 * (i * words + j), words, y, 2 * (j * m + i), m)


def _turn_back(x: Any, y: Any, m: int, n: int) -> Any:
    pairs = m // 2
    for i in range(0, pairs, SIDE):
        for j in range(0, n, SIDE):
            transpose_square(x, 2 * (i * n + j), n, y, 2 * (j * pairs + i), pairs)


def _turn_words(x: Any, y: Any, m: int, n: int) -> Any:
    for i in range(0, m, SIDE):
        for j in range(0, n, SIDE):
            transpose_square(x, i * n + j, n, y, j * m + i, m)


def _turn_plain(x: Any, y: Any, m: int, n: int) -> Any:
    for i in range(m):
        for j in range(n):
            y[j * m + i] = x[i * n + j]


def _half(x: Any) -> bool:
    return bool(x.dtype == types.uint16)


def _on_tiles(x: Any) -> bool:
    return _half(x) and forms.has_tiles()


@overload(narrow)
def _narrowing(x: Any, y: Any) -> Any:
    return _narrow if _half(y) else _narrow_plain


@overload(rounded)
def _rounding(x: Any, y: Any) -> Any:
    return _rounded if _half(y) else _exact


@overload(enter)
def _entering(kind: Any) -> Any:
    return _enter if _on_tiles(kind) else _enter_plain


@overload(leave)
def _leaving(before: Any, kind: Any) -> Any:
    return _leave if _on_tiles(kind) else _leave_plain


@overload(product, jit_options={"fastmath": FAST})
def _multiplying(a: Any, b: Any, c: Any, m: int, n: int, k: int, more: bool) -> Any:
    if a.dtype == types.float64:
        return _product_plain
    return amx.multiply if _on_tiles(a) else avx512.multiply


@overload(pack_pairs)
def _weaving(x: Any, y: Any, m: int, n: int) -> Any:
    return _weave if _half(x) else _weave_plain


@overload(packed_pairs)
def _form(x: Any, y: Any, m: int, n: int) -> Any:
    return _woven if _half(x) else _either


@overload(transpose_right)
def _turning(x: Any, y: Any, m: int, n: int) -> Any:
    return _turn if _half(x) else _turn_words if x.dtype == types.float32 else _turn_plain


@overload(transpose_left)
def _turning_back(x: Any, y: Any, m: int, n: int) -> Any:
    return _turn_back if _half(x) else _turn_words if x.dtype == types.float32 else _turn_plain
