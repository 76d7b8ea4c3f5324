"""Norms over the last axis, of a layer or of a head: before linear layers, before and behind matrix-valued states."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.kernel_log import log_kernel, logged
from zoo.ops.norms import naive
from zoo.ops.norms.naive import SMALLEST_SUM, Activation

__all__ = ["SMALLEST_SUM", "gated_rms", "layer", "rms", "simplex", "summed", "unit"]

layer, simplex, unit = logged("layer")(naive.layer), logged("simplex")(naive.simplex), logged("unit")(naive.unit)


def rms(
    o: Float[Tensor, "*N V"],
    weight: Float[Tensor, " V"],
    eps: float,
    gate: Float[Tensor, "*N V"] | None = None,
    activation: Activation = "swish",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*N V"]:
    """See `naive.rms`."""
    form = forms.choose("rms", o, weight, gate) or naive.rms
    return form(o, weight, eps, gate, activation, dtype)


def summed(
    x: Float[Tensor, "*N V"],
    y: Float[Tensor, "*N V"],
    weight: Float[Tensor, " V"],
    bias: Float[Tensor, " V"] | None,
    eps: float,
    dtype: torch.dtype | None = None,
) -> tuple[Float[Tensor, "*N V"], Float[Tensor, "*N V"]]:
    """See `naive.summed`."""
    if bias is None and x.shape == y.shape:
        form = forms.choose("summed", x, y, weight) or naive.summed
        return form(x, y, weight, bias, eps, dtype)
    log_kernel("summed", "torch")
    return naive.summed(x, y, weight, bias, eps, dtype)


def gated_rms(
    o: Float[Tensor, "*N V"], weight: Float[Tensor, " V"], eps: float, gate: Float[Tensor, "*N V"]
) -> Float[Tensor, "*N V"]:
    """See `naive.gated_rms`."""
    form = forms.choose("gated_rms", o, weight, gate) or naive.gated_rms
    return form(o, weight, eps, gate)
