"""Norms over the width of a head, each a single pass forward and a single pass back where loops can be compiled.

unit      y = c x / √(|x|² + 1e-6)                               (fla's `l2norm`, times a constant)
simplex   y = φ(x) / max(Σ φ(x), 1e-6),  φ(x) = elu(x) + 1       (Schlag et al. 2021, arXiv:2102.11174, section 4.2)
rms       y = w ⊙ o / √(mean o² + ε) ⊙ act(gate),  act = SiLU, σ or no gate
gated_rms y = w ⊙ u / √(mean u² + ε),  u = o ⊙ SiLU(gate)         (Dao & Gu 2024, arXiv:2405.21060, section 7)
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import compiled
from zoo.ops.precision import wide

Activation: TypeAlias = Literal["swish", "sigmoid"]

SMALLEST_SQUARE = 1e-6
SMALLEST_SUM = 1e-6
"""What φ(x) is divided by at least: it may be all zero. The official code of fast weights divides 0 by 0 there."""


def unit(x: Float[Tensor, "*N K"], scale: float = 1.0, dtype: torch.dtype | None = None) -> Float[Tensor, "*N K"]:
    """scale · x / √(|x|² + 1e-6), computed in float32 at least; in `dtype`, x's without one."""
    dtype = x.dtype if dtype is None else dtype
    if _serves(x, dtype):
        from zoo.ops.head_norms_compiled import CompiledUnit  # loads numba

        return CompiledUnit.apply(x, scale, dtype)
    x = wide(x)
    return (x * (scale * torch.rsqrt(x.square().sum(-1, keepdim=True) + SMALLEST_SQUARE))).to(dtype)


def simplex(x: Float[Tensor, "*N K"]) -> Float[Tensor, "*N K"]:
    """φ(x) = elu(x) + 1 over its sum, computed in float32 at least; in x's dtype."""
    if _serves(x, x.dtype):
        from zoo.ops.head_norms_compiled import CompiledSimplex  # loads numba

        return CompiledSimplex.apply(x)
    phi = F.elu(wide(x)) + 1
    return (phi / phi.sum(-1, keepdim=True).clamp(min=SMALLEST_SUM)).to(x.dtype)


def rms(
    o: Float[Tensor, "*N V"],
    weight: Float[Tensor, " V"],
    eps: float,
    gate: Float[Tensor, "*N V"] | None = None,
    activation: Activation = "swish",
) -> Float[Tensor, "*N V"]:
    """RMSNorm of `o` times activation(gate), computed in float32 at least; in o's dtype."""
    if _serves(o, o.dtype) and _serves(weight, weight.dtype) and (gate is None or _serves(gate, gate.dtype)):
        from zoo.ops.head_norms_compiled import CompiledRMS  # loads numba

        return CompiledRMS.apply(o, weight, eps, gate, activation == "swish")
    y = F.rms_norm(wide(o), o.shape[-1:], wide(weight), eps)
    if gate is not None:
        y = y * (F.silu(wide(gate)) if activation == "swish" else wide(gate).sigmoid())
    return y.to(o.dtype)


def gated_rms(
    o: Float[Tensor, "*N V"], weight: Float[Tensor, " V"], eps: float, gate: Float[Tensor, "*N V"]
) -> Float[Tensor, "*N V"]:
    """RMSNorm of o ⊙ SiLU(gate), computed in float32 at least; in o's dtype."""
    if all(_serves(x, x.dtype) for x in (o, weight, gate)):
        from zoo.ops.head_norms_compiled import CompiledGatedRMS  # loads numba

        return CompiledGatedRMS.apply(o, weight, eps, gate)
    u = wide(o) * F.silu(wide(gate))
    return F.rms_norm(u, u.shape[-1:], wide(weight), eps).to(o.dtype)


def _serves(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether loops can compute on `x` and give `dtype`: as `compiled.serves`, and bfloat16."""
    kinds = (*compiled.DTYPES, torch.bfloat16)
    return compiled.available() and x.device.type == "cpu" and x.dtype in kinds and dtype in kinds
