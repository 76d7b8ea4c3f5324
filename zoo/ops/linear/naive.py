"""y = x Wᵀ + b."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def linear(
    x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"] | None
) -> Float[Tensor, "*N F"]:
    """x Wᵀ + b, in what autocast says."""
    return F.linear(x, weight, bias)
