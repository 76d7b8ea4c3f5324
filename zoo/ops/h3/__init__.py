"""H3's two state-space models and two products in one: y = q ⊙ SSM_diag(SSM_shift(k) ⊙ v)."""

from jaxtyping import Complex, Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.h3.naive import h3 as h3_naive
from zoo.ops.precision import no_autocast, promote
from zoo.ops.step_by_step import finite

__all__ = ["h3", "h3_naive", "serves"]


def serves(x: Tensor) -> bool:
    """Whether `h3` is the fast form for features like these."""
    return forms.choose("h3", x) is not None


@forms.falls_back
def h3(
    features: Float[Tensor, "3 D B T"],
    bias: Float[Tensor, "3 D"],
    w: Float[Tensor, "D W"],
    c: Complex[Tensor, "D N"],
    log_a: Complex[Tensor, "D N"],
    skip: Float[Tensor, " D"],
) -> Float[Tensor, "D B T"]:
    """See `naive.h3`. y is in the dtype of the features; all between is in float32 at least, autocast or not."""
    dtype = promote(features, w)
    with no_autocast(features.device):
        system = bias.to(dtype), w.to(dtype), c.to(dtype.to_complex()), log_a.to(dtype.to_complex()), skip.to(dtype)
        if (form := forms.choose("h3", features)) and finite(y := form(features, *system)):
            return y
        return h3_naive(features.to(dtype), *system).to(features.dtype)
