"""In a single pass forward and a single pass back, where torch would take several and loops can be compiled."""

from __future__ import annotations

import torch
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


def add(stream: Float[Tensor, "*N D"], x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    """See `naive.add`. Torch converts a whole tensor before it adds what is of another dtype."""
    mixed = stream.dtype is torch.float32 and x.dtype is torch.bfloat16 and stream.shape == x.shape
    if not compiled.passes(stream, x) or not mixed:
        return naive.add(stream, x)
    from zoo.ops.elementwise.compiled import CompiledAdd  # loads numba

    return CompiledAdd.apply(stream, x)
