"""H3 in compiled loops, where they can be."""

from __future__ import annotations

from jaxtyping import Complex, Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.h3 import naive
from zoo.ops.kernel_log import log_kernel
from zoo.ops.precision import no_autocast, promote


def serves(x: Tensor) -> bool:
    """Whether `h3` is the fast form for features like these."""
    return forms.worth_fusing(x)


def h3(
    features: Float[Tensor, "3 D B T"],
    bias: Float[Tensor, "3 D"],
    w: Float[Tensor, "D W"],
    c: Complex[Tensor, "D N"],
    log_a: Complex[Tensor, "D N"],
    skip: Float[Tensor, " D"],
) -> Float[Tensor, "D B T"]:
    """See `naive.h3`. Answers in the dtype of the features; all between is in float32 at least, autocast or not."""
    dtype = promote(features, w)
    with no_autocast(features.device):
        bias, w, skip = bias.to(dtype), w.to(dtype), skip.to(dtype)
        c, log_a = c.to(dtype.to_complex()), log_a.to(dtype.to_complex())
        if not serves(features):
            return naive.h3(features.to(dtype), bias, w, c, log_a, skip).to(features.dtype)
        from zoo.ops.cpu.h3 import CompiledH3  # loads numba

        log_kernel("h3", "chunked, compiled loops")
        return CompiledH3.apply(features, bias, w, c, log_a, skip)
