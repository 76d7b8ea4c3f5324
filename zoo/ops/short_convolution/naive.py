"""The short causal convolution as the equation reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def short_convolution(
    x: Float[Tensor, "B T D"],
    w: Float[Tensor, "D W"],
    bias: Float[Tensor, " D"] | None = None,
    before: Float[Tensor, "B W-1 D"] | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
    *,
    silu: bool = False,
) -> Float[Tensor, "B T D"]:
    """y_t = act(bias + Σ_{j<W} w_j ⊙ x_{t−W+1+j}), with `before`, or zeros, before the first step; padding is zeros."""
    W = w.shape[1]
    x = x if mask is None else x.masked_fill(~mask[..., None], 0)
    line = torch.cat([x.new_zeros(len(x), W - 1, x.shape[2]) if before is None else before, x], dim=1)
    y = torch.stack([torch.einsum("dn,bnd->bd", w, line[:, t : t + W]) for t in range(x.shape[1])], dim=1)
    y = y if bias is None else y + bias
    return F.silu(y) if silu else y
