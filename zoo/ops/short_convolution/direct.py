"""The short causal convolution by torch's conv1d, or on a CPU by the loop of `compiled.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.kernel_log import log_kernel
from zoo.ops.precision import at_least_fp32, no_autocast, promote
from zoo.ops.short_convolution.naive import Unit


def short_convolution(
    x: Float[Tensor, "B T D"],
    w: Float[Tensor, "D W"],
    bias: Float[Tensor, " D"] | None = None,
    before: Float[Tensor, "B W-1 D"] | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
    *,
    silu: bool = False,
    unit: Unit | None = None,
    narrow: bool = False,
) -> Float[Tensor, "B T D"]:
    """See `naive.short_convolution`. Float32 at least, autocast or not; if `narrow`, rounded to the dtype of x.

    Raises:
        ValueError: w is not (D, W).
    """
    (B, T, D), W, dtype = x.shape, w.shape[-1], promote(x, w, bias)
    if w.shape != (D, W):
        raise ValueError(f"short convolution: the weights are {tuple(w.shape)}, expected ({D}, W)")
    with no_autocast(x.device):  # W multiply-adds a channel cost little; unit vectors magnify rounding
        w = w.to(dtype)
        line_before = w.new_zeros(B, W - 1, D) if before is None else before.to(dtype)
        # One step that continues others is all call, and no loop.
        decoding = before is not None and T == 1
        if forms.supports(at_least_fp32(x[:1, :1]), w) and x.numel() and not decoding:
            from zoo.ops.cpu.short_convolution import CompiledShortConvolution  # loads numba

            log_kernel("short_convolution", "compiled loop")
            bias = w.new_zeros(D) if bias is None else bias.to(dtype)
            lengths = torch.full((B,), T) if mask is None else mask.sum(1)
            x = x if x.dtype is torch.bfloat16 and dtype is torch.float32 else x.to(dtype)
            return CompiledShortConvolution.apply(x, w.T, bias, line_before, lengths, silu, narrow, unit)
        log_kernel("short_convolution", "conv1d")
        line = torch.cat([line_before, x if mask is None else x.masked_fill(~mask[..., None], 0)], dim=1)
        bias = None if bias is None else bias.to(dtype)
        y = F.conv1d(line.mT, w[:, None], bias, groups=D).mT
        y = F.silu(y) if silu else y
        y = y if unit is None else unit.normed(y)
        return y.to(x.dtype) if narrow else y
