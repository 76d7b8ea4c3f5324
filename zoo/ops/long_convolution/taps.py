"""The causal convolution with a few taps, however long the sequence: short convolutions, and H3's shift system."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops import compiled, kernels
from zoo.ops.precision import full, wide, widest


def convolve_taps(
    u: Float[Tensor, "B T D"],
    K: Float[Tensor, "D N"],
    bias: Float[Tensor, " D"] | None = None,
    before: Float[Tensor, "B N-1 D"] | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T D"]:
    """y_t = bias + Σ_{l<N} K_l u_{t−l} per channel, with `before`, or zeros, before the first step.

    Padding counts as zeros. Computes and answers in float32 at least, autocast or not. On a CPU with numba it is the
    loop of `zoo.ops.short_convolution`.

    Raises:
        ValueError: K is not (D, N).
    """
    (B, T, D), N, dtype = u.shape, K.shape[-1], widest(u, K)
    if K.shape != (D, N):
        raise ValueError(f"convolve_taps: the kernel is {tuple(K.shape)}, expected ({D}, N)")
    with full(u.device):
        K = K.flip(1).to(dtype)
        bias = K.new_zeros(D) if bias is None else bias.to(dtype)
        before = K.new_zeros(B, N - 1, D) if before is None else before.to(dtype)
        if compiled.serves(wide(u[:1, :1]), K) and u.numel():
            from zoo.ops.short_convolution import CompiledShortConvolution  # loads numba

            kernels.ran("short_convolution", "compiled loop")
            lengths = torch.full((B,), T) if mask is None else mask.sum(1)
            x = u if u.dtype is torch.bfloat16 else u.to(dtype)
            return CompiledShortConvolution.apply(x, K.T, bias, before, lengths, False)
        kernels.ran("short_convolution", "conv1d")
        x = u.to(dtype) if mask is None else u.to(dtype).masked_fill(~mask[..., None], 0)
        return F.conv1d(torch.cat([before, x], dim=1).mT, K[:, None], bias, groups=D).mT
