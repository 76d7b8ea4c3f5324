"""Diagonal linear recurrence h_t = a_t h_{t-1} + b_t: S5, LRU, RG-LRU, minGRU, Mamba and RWKV-4 are made of it."""

from torch import Tensor

from zoo.ops.diagonal_scan.chunked import scan as chunked_scan
from zoo.ops.diagonal_scan.naive import scan as scan_naive
from zoo.ops.diagonal_scan.naive import step
from zoo.ops.kernel_log import log_kernel

__all__ = ["scan", "scan_naive", "step"]


def scan(a: Tensor, b: Tensor, h0: Tensor | None = None) -> Tensor:
    """See `naive.scan`. `a` and `b` must have one shape and dtype.

    Counts 2 FLOPs per element forward and 4 backward, four times that if complex.

    Raises:
        ValueError: shapes or dtypes differ.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"scan: a is {tuple(a.shape)} {a.dtype}, b is {tuple(b.shape)} {b.dtype}; make them equal")
    if h0 is not None and (h0.shape != b[:, 0].shape or h0.dtype != b.dtype):
        raise ValueError(f"scan: h0 is {tuple(h0.shape)} {h0.dtype}, expected {tuple(b[:, 0].shape)} {b.dtype}")
    log_kernel("diagonal_scan", "torch")
    return chunked_scan(a, b, h0)
