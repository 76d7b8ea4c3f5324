"""Linear layers in fewer products and passes than torch takes.

On a CPU a bias is added where the sums are, as torch first copies it to every row; the products of one x with several
weights are one product. Backward,

    dx = dy W,    dW = dyᵀ x,    db = Σ dy
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops, forms, precision
from zoo.ops.linear import naive

KNOWN = (torch.float32, torch.bfloat16)
MANY = 16
"""Products of a row, for more than which a matrix product is faster."""
FEW = 64
"""Rows, for less than which putting weights together costs more than it saves."""


def linear(
    x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"] | None
) -> Float[Tensor, "*N F"]:
    """See `naive.linear`."""
    if bias is None or not _serves(x, weight):
        return naive.linear(x, weight, bias)
    return BiasedLinear.apply(x, weight, bias, precision.matmul_dtype(x, weight))


class BiasedLinear(torch.autograd.Function):
    """`naive.linear` in `dtype`; gradients come in the dtypes of their tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.kinds = x.dtype, weight.dtype, bias.dtype
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, slopes = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        needed = ctx.needs_input_grad
        dx = (dy @ weight).to(ctx.kinds[0]) if needed[0] else None
        dw = (slopes.mT @ rows).to(ctx.kinds[1]) if needed[1] else None
        return dx, dw, slopes.sum(0).to(ctx.kinds[2]) if needed[2] else None, None


def joined(x: Float[Tensor, "*N D"], *weights: Float[Tensor, "_ D"]) -> Float[Tensor, "*N _"]:
    """See `naive.joined`: one product, but of a few rows."""
    if x.shape[:-1].numel() < FEW:
        return naive.joined(x, *weights)
    return F.linear(x, torch.cat(weights))


def few(x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"]) -> Float[Tensor, "*N F"]:
    """See `naive.few`. On a CPU in one pass over x, which torch would copy."""
    w = precision.at_least_fp32(weight)
    if len(w) > MANY or not forms.worth_fusing(x) or w.dtype != precision.promote(x, w):
        return naive.few(x, weight)
    from zoo.ops.cpu.linear import CompiledFew  # loads numba

    return CompiledFew.apply(x.flatten(0, -2), w).unflatten(0, x.shape[:-1])


def product(x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"]) -> Float[Tensor, "*N F"]:
    """x Wᵀ + b, by oneDNN itself in what it knows."""
    if x.dtype in KNOWN:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return naive.linear(x, weight, bias)


def _serves(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can, and nobody counts FLOPs, for which torch's own ops are known."""
    on_cpu = x.device.type == "cpu" and _there() and x.numel() > 0
    return on_cpu and precision.matmul_dtype(x, weight) in KNOWN and not flops.counting()


@cache
def _there() -> bool:
    """Whether torch has the product, which it calls itself in compiled graphs."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
