"""In a single pass forward and a single pass back, where loops can be compiled."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.precision import promote
from zoo.ops.rotation import naive


def rotate(
    x: Float[Tensor, "B T F"], real: Float[Tensor, "#B T F/2"], imaginary: Float[Tensor, "#B T F/2"]
) -> Float[Tensor, "B T F"]:
    """See `naive.rotate`."""
    if not forms.worth_fusing(x, real, imaginary):
        return naive.rotate(x, real, imaginary)
    from zoo.ops.cpu.rotation import CompiledRotation  # loads numba

    return CompiledRotation.apply(x, real.to(promote(x)), imaginary.to(promote(x)))
