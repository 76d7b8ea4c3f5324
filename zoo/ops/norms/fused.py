"""Norms in a single pass forward and a single pass back, where loops can be compiled."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.norms import naive
from zoo.ops.norms.naive import Activation


def unit(x: Float[Tensor, "*N K"], scale: float = 1.0, dtype: torch.dtype | None = None) -> Float[Tensor, "*N K"]:
    """See `naive.unit`."""
    dtype = x.dtype if dtype is None else dtype
    if not forms.worth_fusing(x) or dtype not in forms.KINDS:
        return naive.unit(x, scale, dtype)
    from zoo.ops.cpu.norms import CompiledUnit  # loads numba

    return CompiledUnit.apply(x, scale, dtype)


def simplex(x: Float[Tensor, "*N K"]) -> Float[Tensor, "*N K"]:
    """See `naive.simplex`."""
    if not forms.worth_fusing(x):
        return naive.simplex(x)
    from zoo.ops.cpu.norms import CompiledSimplex  # loads numba

    return CompiledSimplex.apply(x)


def rms(
    o: Float[Tensor, "*N V"],
    weight: Float[Tensor, " V"],
    eps: float,
    gate: Float[Tensor, "*N V"] | None = None,
    activation: Activation = "swish",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*N V"]:
    """See `naive.rms`."""
    dtype = o.dtype if dtype is None else dtype
    if not forms.worth_fusing(o, weight, gate) or not _one_width(dtype, o, gate):
        return naive.rms(o, weight, eps, gate, activation, dtype)
    from zoo.ops.cpu.norms import CompiledNorm, CompiledRMS  # loads numba

    if gate is None:
        return CompiledNorm.apply(o, None, weight, None, eps, dtype)[1]
    return CompiledRMS.apply(o, weight, eps, gate, activation == "swish", dtype)


def layer(
    o: Float[Tensor, "*N V"],
    weight: Float[Tensor, " V"],
    bias: Float[Tensor, " V"],
    eps: float,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*N V"]:
    """See `naive.layer`."""
    dtype = o.dtype if dtype is None else dtype
    if not forms.worth_fusing(o, weight, bias) or not _one_width(dtype, o):
        return naive.layer(o, weight, bias, eps, dtype)
    from zoo.ops.cpu.norms import CompiledNorm  # loads numba

    return CompiledNorm.apply(o, None, weight, bias, eps, dtype)[1]


def summed(
    x: Float[Tensor, "*N V"],
    y: Float[Tensor, "*N V"],
    weight: Float[Tensor, " V"],
    bias: Float[Tensor, " V"] | None,
    eps: float,
    dtype: torch.dtype | None = None,
) -> tuple[Float[Tensor, "*N V"], Float[Tensor, "*N V"]]:
    """See `naive.summed`."""
    dtype = torch.promote_types(x.dtype, y.dtype) if dtype is None else dtype
    if not forms.worth_fusing(x, y, weight, bias) or not _one_width(dtype, x, y) or x.shape != y.shape:
        return naive.summed(x, y, weight, bias, eps, dtype)
    from zoo.ops.cpu.norms import CompiledNorm  # loads numba

    return CompiledNorm.apply(x, y, weight, bias, eps, dtype)


def gated_rms(
    o: Float[Tensor, "*N V"], weight: Float[Tensor, " V"], eps: float, gate: Float[Tensor, "*N V"]
) -> Float[Tensor, "*N V"]:
    """See `naive.gated_rms`."""
    if not forms.worth_fusing(o, weight, gate) or not _one_width(o.dtype, gate):
        return naive.gated_rms(o, weight, eps, gate)
    from zoo.ops.cpu.norms import CompiledGatedRMS  # loads numba

    return CompiledGatedRMS.apply(o, weight, eps, gate)


def _one_width(dtype: torch.dtype, *tensors: Tensor | None) -> bool:
    """Whether what is in `dtype` and these all are read or written by loops that compute in one dtype."""
    kinds = {dtype, *(x.dtype for x in tensors if x is not None)}
    return kinds <= {torch.float64} or kinds <= {torch.float32, torch.bfloat16}
