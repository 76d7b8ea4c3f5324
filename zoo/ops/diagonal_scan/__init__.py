"""Diagonal linear recurrence h_t = a_t h_{t-1} + b_t: S5, LRU, RG-LRU, minGRU, Mamba and RWKV-4 are made of it."""

from zoo.ops.arguments import checked
from zoo.ops.diagonal_scan import naive
from zoo.ops.diagonal_scan.chunked import scan as chunked_scan
from zoo.ops.diagonal_scan.naive import scan as scan_naive
from zoo.ops.forms import computes
from zoo.ops.kernel_log import log_kernel

__all__ = ["scan", "scan_naive", "step"]

step = checked(naive.step)


@computes(scan_naive)
def scan(a, b, h0=None):  # type: ignore[no-untyped-def]
    """Counts 2 FLOPs per element forward and 4 backward, four times that if complex.

    Raises:
        ValueError: dtypes differ.
    """
    if not a.dtype is b.dtype is (b if h0 is None else h0).dtype:
        dtypes = f"a is {a.dtype}, b {b.dtype}" + ("" if h0 is None else f" and h0 {h0.dtype}")
        raise ValueError(f"diagonal_scan.scan: {dtypes}; make them equal")
    log_kernel("diagonal_scan", "torch")
    return chunked_scan(a, b, h0)
