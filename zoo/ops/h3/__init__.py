"""H3's two state-space models and two products in one: y = q ⊙ SSM_diag(SSM_shift(k) ⊙ v)."""

from torch import Tensor

from zoo.ops import forms
from zoo.ops.h3.naive import h3 as h3_naive
from zoo.ops.precision import no_autocast, promote
from zoo.ops.step_by_step import finite

__all__ = ["h3", "h3_naive", "serves"]


def serves(x: Tensor) -> bool:
    """Whether `h3` is the fast form for features like these."""
    return forms.choose("h3", x) is not None


@forms.computes(h3_naive)
def h3(features, bias, w, c, log_a, skip):  # type: ignore[no-untyped-def]
    """y is in the dtype of the features; all between is in float32 at least, autocast or not."""
    dtype = promote(features, w)
    with no_autocast(features.device):
        system = bias.to(dtype), w.to(dtype), c.to(dtype.to_complex()), log_a.to(dtype.to_complex()), skip.to(dtype)
        if (form := forms.choose("h3", features, *system[:2])) and finite(y := form(features, *system)):
            return y
        return h3_naive(features.to(dtype), *system).to(features.dtype)
