"""The causal convolution as the equation reads."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def convolve(u: Float[Tensor, "B T D"], K: Float[Tensor, "D T"]) -> Float[Tensor, "B T D"]:
    """y_t = Σ_{s≤t} K_s u_{t−s} per channel."""
    T = u.shape[1]
    return torch.stack([torch.einsum("dt,btd->bd", K[:, : t + 1].flip(1), u[:, : t + 1]) for t in range(T)], dim=1)


def convolve_taps(
    u: Float[Tensor, "B T D"],
    K: Float[Tensor, "D N"],
    bias: Float[Tensor, " D"] | None = None,
    before: Float[Tensor, "B N-1 D"] | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T D"]:
    """y_t = bias + Σ_{l<N} K_l u_{t−l} per channel, with `before`, or zeros, before the first step."""
    N = K.shape[1]
    u = u if mask is None else u.masked_fill(~mask[..., None], 0)
    line = torch.cat([u.new_zeros(len(u), N - 1, u.shape[2]) if before is None else before, u], dim=1)
    y = torch.stack([torch.einsum("dn,bnd->bd", K.flip(1), line[:, t : t + N]) for t in range(u.shape[1])], dim=1)
    return y if bias is None else y + bias
