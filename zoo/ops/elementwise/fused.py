"""In a single pass forward and a single pass back, where torch would take several and loops can be compiled."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.elementwise import naive


def swiglu(g: Float[Tensor, "*N F"], u: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
    """See `naive.swiglu`."""
    if not forms.worth_fusing(g, u) or u.dtype is not g.dtype:
        return naive.swiglu(g, u)
    from zoo.ops.cpu.elementwise import CompiledSwiGLU  # loads numba

    return CompiledSwiGLU.apply(g, u)


def positive(x: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
    """See `naive.positive`."""
    if not forms.worth_fusing(x):
        return naive.positive(x)
    from zoo.ops.cpu.elementwise import CompiledPositive  # loads numba

    return CompiledPositive.apply(x)


def log_sigmoid(x: Float[Tensor, "*N F"], scale: float = 1.0) -> Float[Tensor, "*N F"]:
    """See `naive.log_sigmoid`."""
    if not forms.worth_fusing(x):
        return naive.log_sigmoid(x, scale)
    from zoo.ops.cpu.elementwise import CompiledLogSigmoid  # loads numba

    return CompiledLogSigmoid.apply(x, scale)
