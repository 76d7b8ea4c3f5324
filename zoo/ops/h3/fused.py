"""H3 in compiled loops, where they can be."""

from __future__ import annotations

from jaxtyping import Complex, Float
from torch import Tensor

from zoo.ops import compiled, kernels
from zoo.ops.h3 import naive
from zoo.ops.precision import full, widest


def serves(x: Tensor) -> bool:
    """Whether `h3` is the fast form for features like these."""
    return compiled.passes(x)


def h3(
    q: Float[Tensor, "D B T"],
    k: Float[Tensor, "D B T"],
    v: Float[Tensor, "D B T"],
    w: Float[Tensor, "D W"],
    c: Complex[Tensor, "D N"],
    log_a: Complex[Tensor, "D N"],
    skip: Float[Tensor, " D"],
) -> Float[Tensor, "D B T"]:
    """See `naive.h3`. Answers in the dtype of q, k and v; all between is in float32 at least, autocast or not."""
    dtype = widest(q, w)
    with full(q.device):
        w, skip, c, log_a = w.to(dtype), skip.to(dtype), c.to(dtype.to_complex()), log_a.to(dtype.to_complex())
        if not serves(q):
            return naive.h3(q.to(dtype), k.to(dtype), v.to(dtype), w, c, log_a, skip).to(q.dtype)
        from zoo.ops.h3.compiled import CompiledH3  # loads numba

        kernels.ran("h3", "chunked, compiled loops")
        return CompiledH3.apply(q, k, v, w, c, log_a, skip)
