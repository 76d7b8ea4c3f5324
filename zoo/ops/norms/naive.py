"""Norms over the last axis.

unit      y = c x / √(|x|² + 1e-6)                               (fla's `l2norm`, times a constant)
simplex   y = φ(x) / max(Σ φ(x), 1e-6),  φ(x) = elu(x) + 1       (Schlag et al. 2021, arXiv:2102.11174, section 4.2)
rms       y = w ⊙ o / √(mean o² + ε) ⊙ act(gate),  act = SiLU, σ or no gate
gated_rms y = w ⊙ u / √(mean u² + ε),  u = o ⊙ SiLU(gate)         (Dao & Gu 2024, arXiv:2405.21060, section 7)
layer     y = w ⊙ (o − mean o) / √(var o + ε) + b                (Ba et al. 2016, arXiv:1607.06450, section 3.1)

All are computed in float32 at least, and returned in `dtype`, or where there is none in that of their first input.
"""

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops.elementwise import positive
from zoo.ops.precision import at_least_fp32, promote

Activation: TypeAlias = Literal["swish", "sigmoid"]

SMALLEST_SQUARE = 1e-6
SMALLEST_SUM = 1e-6
"""What φ(x) is divided by at least: it may be all zero. The official code of fast weights divides 0 by 0 there."""


def unit(x: Float[Tensor, "*N K"], scale: float = 1.0, dtype: torch.dtype | None = None) -> Float[Tensor, "*N K"]:
    """scale · x / √(|x|² + 1e-6)."""
    y = at_least_fp32(x)
    y = y * (scale * torch.rsqrt(y.square().sum(-1, keepdim=True) + SMALLEST_SQUARE))
    return y.to(dtype or x.dtype)


def simplex(x: Float[Tensor, "*N K"]) -> Float[Tensor, "*N K"]:
    """φ(x) = elu(x) + 1 over its sum."""
    phi = positive(at_least_fp32(x))
    return (phi / phi.sum(-1, keepdim=True).clamp(min=SMALLEST_SUM)).to(x.dtype)


def rms(
    o: Float[Tensor, "*N V"],
    weight: Float[Tensor, " V"],
    eps: float,
    gate: Float[Tensor, "*N V"] | None = None,
    activation: Activation = "swish",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*N V"]:
    """RMSNorm of `o` times activation(gate)."""
    y = F.rms_norm(at_least_fp32(o), o.shape[-1:], at_least_fp32(weight), eps)
    if gate is not None:
        y = y * (F.silu(at_least_fp32(gate)) if activation == "swish" else at_least_fp32(gate).sigmoid())
    return y.to(dtype or o.dtype)


def gated_rms(
    o: Float[Tensor, "*N V"], weight: Float[Tensor, " V"], eps: float, gate: Float[Tensor, "*N V"]
) -> Float[Tensor, "*N V"]:
    """RMSNorm of o ⊙ SiLU(gate)."""
    u = at_least_fp32(o) * F.silu(at_least_fp32(gate))
    return F.rms_norm(u, u.shape[-1:], at_least_fp32(weight), eps).to(o.dtype)


def layer(
    o: Float[Tensor, "*N V"],
    weight: Float[Tensor, " V"],
    bias: Float[Tensor, " V"],
    eps: float,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*N V"]:
    """LayerNorm of `o`."""
    wide = promote(o, weight, bias)
    return F.layer_norm(o.to(wide), o.shape[-1:], weight.to(wide), bias.to(wide), eps).to(dtype or o.dtype)
