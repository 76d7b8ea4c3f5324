"""In a single pass forward and a single pass back, where torch would take several and loops can be compiled."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from zoo.ops import compiled
from zoo.ops.elementwise import naive


def swiglu(g: Float[Tensor, "*N F"], u: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
    """See `naive.swiglu`."""
    if not compiled.passes(g, u) or u.dtype is not g.dtype:
        return naive.swiglu(g, u)
    from zoo.ops.elementwise.compiled import CompiledSwiGLU  # loads numba

    return CompiledSwiGLU.apply(g, u)


def positive(x: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
    """See `naive.positive`."""
    if not compiled.passes(x):
        return naive.positive(x)
    from zoo.ops.elementwise.compiled import CompiledPositive  # loads numba

    return CompiledPositive.apply(x)


def log_sigmoid(x: Float[Tensor, "*N F"], scale: float = 1.0) -> Float[Tensor, "*N F"]:
    """See `naive.log_sigmoid`."""
    if not compiled.passes(x):
        return naive.log_sigmoid(x, scale)
    from zoo.ops.elementwise.compiled import CompiledLogSigmoid  # loads numba

    return CompiledLogSigmoid.apply(x, scale)
