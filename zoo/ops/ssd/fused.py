"""State space duality by linear attention in chunks; where loops can be compiled, Δ x and D x are within its passes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms, precision
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention import linear_attention
from zoo.ops.precision import no_autocast, promote


def ssd(
    x: Float[Tensor, "b H T P"],
    delta: Float[Tensor, "b H T"],
    g: Float[Tensor, "b H T"],
    B: Float[Tensor, "b G T N"],
    C: Float[Tensor, "b G T N"],
    D: Float[Tensor, "H P"],
    state: Float[Tensor, "b H N P"] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "b H T P"], Float[Tensor, "b H N P"]]:
    """See `naive.ssd`; y is in x's dtype, products as in `linear_attention`, all else in float32 at least."""
    T = x.shape[2]
    if not forms.worth_fusing(x) or T == 1:
        y, S = linear_attention(C, B, delta.to(x.dtype)[..., None] * x, g, state, chunk)
        return torch.addcmul(y, D[:, None].to(x.dtype), x), S
    from zoo.ops.cpu.ssd import CompiledSSD  # loads numba

    log_kernel("linear_attention", "chunked, compiled loops")
    products = precision.matmul_dtype(C, B, x)
    with no_autocast(x.device):
        dtype = promote(x, delta, g, state)
        S = x.new_zeros(len(x), x.shape[1], B.shape[3], x.shape[3], dtype=dtype) if state is None else state.to(dtype)
        delta, g, D = delta.to(dtype), g.to(dtype), D.to(dtype)
        return CompiledSSD.apply(x, delta, g, B, C, D, S, min(chunk, T), products)
