"""`zoo.ops.elementwise` as compiled loops over rows.

swiglu  dg = dy ⊙ u ⊙ σ(g) (1 + g (1 − σ(g))),  du = dy ⊙ SiLU(g)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops.bfloat16 import array, narrowed, rows, widened
from zoo.ops.loops import exp, loop
from zoo.ops.precision import widest
from zoo.ops.threads import run

GRAIN = 16
"""Rows that one thread takes at least."""


class CompiledSwiGLU(torch.autograd.Function):
    """`naive.swiglu` of g and u (*N, F), both of one dtype."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, u: Tensor) -> Tensor:
        y = torch.empty(g.shape, dtype=g.dtype)
        _over_rows(_swiglu, g, u, y)
        ctx.save_for_backward(g, u)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        g, u = ctx.saved_tensors
        dg, du = (torch.empty(g.shape, dtype=g.dtype) for _ in range(2))
        _over_rows(_swiglu_backward, g, u, dy, dg, du)
        return dg, du


def _over_rows(kernel: Any, *tensors: Tensor) -> None:
    """`kernel` on tensors (*N, d) as rows, and on a one in the dtype it computes in."""
    one, arrays = torch.ones(1, dtype=widest(tensors[0])), [rows(x) for x in tensors]
    run(kernel, len(arrays[0]), array(one), *arrays, grain=GRAIN)


@loop
def _swiglu(start, stop, ones, g, u, y):  # type: ignore[no-untyped-def]
    d, one = g.shape[1], ones[0]
    value = np.empty(d, y.dtype)
    for i in range(start, stop):
        gate, up, out = g[i], u[i], y[i]
        for c in range(d):
            z = widened(gate[c])
            value[c] = narrowed(z / (one + exp(-z)) * widened(up[c]), value)
        for c in range(d):
            out[c] = value[c]


@loop
def _swiglu_backward(start, stop, ones, g, u, dy, dg, du):  # type: ignore[no-untyped-def]
    d, one = g.shape[1], ones[0]
    gate_slope, up_slope = np.empty(d, g.dtype), np.empty(d, g.dtype)
    for i in range(start, stop):
        gate, up, slope, gate_out, up_out = g[i], u[i], dy[i], dg[i], du[i]
        for c in range(d):
            z, s = widened(gate[c]), widened(slope[c])
            on = one / (one + exp(-z))
            up_slope[c] = narrowed(s * z * on, up_slope)
            gate_slope[c] = narrowed(s * widened(up[c]) * on * (one + z * (one - on)), gate_slope)
        for c in range(d):
            gate_out[c] = gate_slope[c]
        for c in range(d):
            up_out[c] = up_slope[c]
