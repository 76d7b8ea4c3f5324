"""Linear layers: y = x Wᵀ + b, several of one input, and those of few outputs in full precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops.kernel_log import logged
from zoo.ops.precision import at_least_fp32, no_autocast

FEW = 64
"""Rows, for less than which putting weights together costs more than it saves."""


@logged("linear")
def linear(
    x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"] | None
) -> Float[Tensor, "*N F"]:
    """x Wᵀ + b, in what autocast says."""
    return F.linear(x, weight, bias)


@logged("linear")
def joined(x: Float[Tensor, "*N D"], *weights: Float[Tensor, "_ D"]) -> Float[Tensor, "*N _"]:
    """x Wᵀ of every weight, side by side, in what autocast says: one product, but of a few rows."""
    if x.shape[:-1].numel() < FEW:
        return torch.cat([F.linear(x, weight) for weight in weights], dim=-1)
    return F.linear(x, torch.cat(weights))


@logged("linear")
def few(x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"]) -> Float[Tensor, "*N F"]:
    """x Wᵀ in float32 at least, autocast or not: gates and rates, whose exponentials would magnify rounding."""
    with no_autocast(x.device):
        return F.linear(at_least_fp32(x), at_least_fp32(weight))
