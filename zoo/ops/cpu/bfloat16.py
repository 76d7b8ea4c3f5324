"""bfloat16 inside compiled loops: as NumPy has no such type, its bits travel as uint16, the upper half of a float32.

A loop written with `widened` and `narrowed` runs on float32 and float64 arrays as well, where both do nothing.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import types
from numpy.typing import NDArray
from torch import Tensor

from zoo.ops.cpu.intrinsics import by_type
from zoo.ops.cpu.jit import called


def array(x: Tensor) -> NDArray[Any]:
    """x as a C-contiguous NumPy array, over the same memory where it is contiguous; bfloat16 as uint16."""
    x = x.detach().contiguous()
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype is torch.bfloat16 else x.numpy()


def as_matrix(x: Tensor) -> Tensor:
    """x (*N, d) as (N, d)."""
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


def number(x: float, dtype: torch.dtype) -> Any:
    """x in float32 or float64: a number of Python's would make a loop compute in float64."""
    return np.float64(x) if dtype is torch.float64 else np.float32(x)


class Rows(NamedTuple):
    """The rows of a tensor (B, H, T, d) where they lie: for loops, which find one by `offset`."""

    memory: Tensor
    """From the first number to the last."""
    batch: int
    """Numbers from one element of the batch to the next, from one head to the next, and from one step to the next."""
    head: int
    step: int
    H: int
    T: int
    width: int
    """d."""


def rows(x: Tensor) -> Rows:
    """See `Rows`; of a copy, where the numbers of a row do not lie side by side."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    size = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    return Rows(x.detach().as_strided((size,), (1,)), *x.stride()[:3], *x.shape[1:])


def empty_rows(like: Tensor) -> Tensor:
    """An empty tensor of that shape (B, H, T, d) and dtype, which lies in memory as (B, T, H, d)."""
    return torch.empty_like(like.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


@called
def offset(x, b, h, t):  # type: ignore[no-untyped-def]
    """Where in the memory of `Rows` the row of step t begins, in head h of element b of the batch."""
    return b * x.batch + h * x.head + t * x.step


@by_type
def widened(x: Any) -> Any:
    """The number that an element of `array` stands for."""
    return _float if x == types.uint16 else lambda x: x


@by_type
def narrowed(x: Any, kind: Any) -> Any:
    """`x` as an element of arrays like `kind`, rounded to the nearest, ties to even."""
    return _bits if kind.dtype == types.uint16 else lambda x, kind: x


def _float(x: Any) -> Any:
    return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


def _bits(x: Any, kind: Any) -> Any:
    bits = np.float32(x).view(np.uint32)
    odd = np.uint32(bits >> np.uint32(16)) & np.uint32(1)
    nearest = np.uint32(bits + np.uint32(0x7FFF) + odd)
    kept = np.uint32(0x7FC00000) if x != x else nearest
    return np.uint16(np.uint32(kept) >> np.uint32(16))
