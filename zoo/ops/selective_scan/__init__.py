"""The selective state space of Mamba: a diagonal recurrence whose step size, input and output depend on the input."""

import torch.nn.functional as F

from zoo.ops import forms, precision
from zoo.ops.arguments import checked
from zoo.ops.kernel_log import log_kernel
from zoo.ops.selective_scan import naive, official
from zoo.ops.selective_scan.chunked import selective_scan as chunked_scan
from zoo.ops.selective_scan.naive import gated_selective_scan as gated_selective_scan_naive
from zoo.ops.selective_scan.naive import selective_scan as selective_scan_naive

__all__ = ["gated_selective_scan", "gated_selective_scan_naive", "selective_scan", "selective_scan_naive", "step"]

step = checked(naive.step)


@forms.computes(selective_scan_naive)
def selective_scan(u, delta, A, B, C, D=None, state=None):  # type: ignore[no-untyped-def]
    """Float32 at least, autocast or not.

    Counts its recurrence: 2 FLOPs per element of the states forward and 4 backward.
    """
    if u.shape[1] == 1:
        y, h = naive.step(u[:, 0], delta[:, 0], A, B[:, 0], C[:, 0], D, state)
        return y[:, None], h
    if (answer := official.selective_scan(u, delta, A, B, C, D, state)) is not None:
        return answer
    log_kernel("selective_scan", "torch")
    with precision.no_autocast(u.device):
        dtype = precision.promote(u, delta, A, B, C, D, state)
        h = u.new_zeros(len(u), *A.shape, dtype=dtype) if state is None else state.to(dtype)
        x, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
        y, h = chunked_scan(x, delta, A, B, C, None if D is None else D.to(dtype), h)
        return y.to(u.dtype), h


@forms.computes(gated_selective_scan_naive)
def gated_selective_scan(u, delta, A, B, C, D, z, bias, state=None):  # type: ignore[no-untyped-def]
    """Float32 at least inside, autocast or not; y is in u's dtype."""
    with precision.no_autocast(u.device):
        dtype = precision.promote(u, delta, A, B, C, D, z, bias, state)
        h = u.new_zeros(len(u), *A.shape, dtype=dtype) if state is None else state.to(dtype)
        A, D, bias = (x.to(dtype) for x in (A, D, bias))
        inputs = u, delta, A, B, C, D, h, z, bias
        # The loop takes two of the N states at a time; for a single step the call overhead dominates.
        fits = u.shape[1] > 1 and A.shape[1] % 2 == 0
        if fits and (form := forms.choose("selective_scan", *inputs, variant="gated")):
            y, h = form(*inputs)
            return y.to(u.dtype), h
        step = F.softplus(delta.to(dtype) + bias)
        y, h = selective_scan(precision.at_least_fp32(u), step, A, B, C, D, None if state is None else h)
        return (y * F.silu(precision.at_least_fp32(z))).to(u.dtype), h
