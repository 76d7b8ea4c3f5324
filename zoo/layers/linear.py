"""Linear layers, several of one input or in full precision, and the initial weights that several architectures share.

Standard deviations follow the width, 1/√fan_in (LeCun et al. 1998, Efficient BackProp, section 4.6; for tables Vaswani
et al. 2017). GPT-2's constant 0.02 is the same at width 2,500 and far too small at the widths of a small benchmark: at
width 64 attention then fails on recall that it solves within a thousand steps from these.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.ops.kernel_log import log_kernel, logged
from zoo.ops.precision import at_least_fp32, no_autocast

FEW = 64
"""Rows, for less than which putting weights together costs more than it saves."""


class Linear(nn.Linear):
    """y = x Wᵀ + b, which records name."""

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N F"]:
        log_kernel("linear", "torch")
        return super().forward(x)


@logged("linear")
def joined(x: Float[Tensor, "*N D"], *weights: Float[Tensor, "_ D"]) -> Float[Tensor, "*N _"]:
    """x Wᵀ of every weight, side by side, in what autocast says: one product, but of a few rows."""
    if x.shape[:-1].numel() < FEW:
        return torch.cat([F.linear(x, weight) for weight in weights], dim=-1)
    return F.linear(x, torch.cat(weights))


@logged("linear")
def few(
    x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"] | None = None
) -> Float[Tensor, "*N F"]:
    """x Wᵀ + b in float32 at least, autocast or not: gates and rates, whose exponentials would magnify rounding."""
    with no_autocast(x.device):
        y = F.linear(at_least_fp32(x), at_least_fp32(weight))
        return y if bias is None else y + at_least_fp32(bias)


def fan_in_(layer: nn.Linear, scale: float = 1.0) -> None:
    """W ~ N(0, scale²/fan_in), b = 0."""
    nn.init.normal_(layer.weight, std=scale * layer.in_features**-0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def residual_scale(depth: int) -> float:
    """1/√(2·depth), the factor of every projection into the residual stream (GPT-2, section 2.3)."""
    return (2 * depth) ** -0.5


def branch_(
    *into: nn.Linear, out: nn.Linear, depth: int, values: nn.Linear | None = None, gain: float | None = None
) -> None:
    """The linear layers of a residual branch: W ~ N(0, 1/fan_in), `out`, its last, scaled by 1/√(2·depth); b = 0.

    With DeepNorm's β as `gain`, `values` and `out` are scaled by it instead.
    """
    for layer in into:
        fan_in_(layer)
    if values is not None:
        fan_in_(values, gain or 1.0)
    fan_in_(out, gain or residual_scale(depth))


def table_(table: Tensor) -> None:
    """Rows ~ N(0, 1/D): vectors of length about 1."""
    nn.init.normal_(table, std=table.shape[-1] ** -0.5)


def lecun_normal_(weight: Tensor, fan_in: int) -> Tensor:
    """N(0, 1/fan_in), from a normal cut at two standard deviations."""
    std = fan_in**-0.5 / 0.87962566103423978  # the standard deviation of a unit normal after the cut
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def flax_dense_(layer: nn.Linear) -> None:
    """flax' default for dense layers: W by `lecun_normal_`, b = 0."""
    lecun_normal_(layer.weight, layer.in_features)
    nn.init.zeros_(layer.bias)


@torch.no_grad()
def log_step_(log_dt: Tensor, dt_min: float, dt_max: float) -> None:
    """ln Δ uniform, for Δ = e^{log_dt}."""
    log_dt.uniform_(math.log(dt_min), math.log(dt_max))


@torch.no_grad()
def softplus_bias_(bias: Tensor, dt_min: float, dt_max: float, floor: float = 0.0) -> None:
    """Δ log-uniform, and `floor` at the least, for Δ = softplus(bias): bias = Δ + ln(1 − e^{−Δ})."""
    dt = torch.empty_like(bias).uniform_(math.log(dt_min), math.log(dt_max)).exp().clamp(min=floor)
    bias.copy_(dt + torch.log(-torch.expm1(-dt)))
