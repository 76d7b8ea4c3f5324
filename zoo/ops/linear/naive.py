"""y = x Wᵀ + b, several of one x, and a few numbers of x in full precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import precision


def linear(
    x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"] | None
) -> Float[Tensor, "*N F"]:
    """x Wᵀ + b, in what autocast says."""
    return F.linear(x, weight, bias)


def joined(x: Float[Tensor, "*N D"], *weights: Float[Tensor, "_ D"]) -> Float[Tensor, "*N _"]:
    """x Wᵀ of every weight, side by side, in what autocast says."""
    return torch.cat([F.linear(x, weight) for weight in weights], dim=-1)


def few(x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"]) -> Float[Tensor, "*N F"]:
    """x Wᵀ in float32 at least, autocast or not: gates and rates, whose exponentials would magnify rounding."""
    with precision.no_autocast(x.device):
        return F.linear(precision.at_least_fp32(x), precision.at_least_fp32(weight))
