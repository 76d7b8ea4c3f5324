"""`zoo.ops.scalar_maps` as compiled loops over rows.

positive     dx = dy ⊙ min(y, 1)
log_sigmoid  dx = c dy ⊙ σ(−x)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.ops.bfloat16 import array, narrowed, rows, widened
from zoo.ops.loops import exp, loop, sigmoid, softplus
from zoo.ops.precision import widest
from zoo.ops.threads import run

GRAIN = 16
"""Rows that one thread takes at least."""


class CompiledPositive(torch.autograd.Function):
    """`naive.positive`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty(x.shape, dtype=x.dtype)
        _over_rows(_positive, 1, x, y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        dx = torch.empty(y.shape, dtype=y.dtype)
        _over_rows(_positive_backward, 1, y, dy, dx)
        return dx


class CompiledLogSigmoid(torch.autograd.Function):
    """`naive.log_sigmoid`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        y = torch.empty(x.shape, dtype=widest(x))
        _over_rows(_log_sigmoid, scale, x, y)
        ctx.save_for_backward(x)
        ctx.scale = scale
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        dx = torch.empty(x.shape, dtype=x.dtype)
        _over_rows(_log_sigmoid_backward, ctx.scale, x, dy, dx)
        return dx, None


def _over_rows(kernel: Any, constant: float, *tensors: Tensor) -> None:
    """`kernel` on tensors (*N, d) as rows, and on a constant and a zero in the dtype it computes in."""
    constants, arrays = torch.tensor([constant, 0], dtype=widest(tensors[0])), [rows(x) for x in tensors]
    run(kernel, len(arrays[0]), array(constants), *arrays, grain=GRAIN)


@loop
def _positive(start, stop, constants, x, y):  # type: ignore[no-untyped-def]
    zero = constants[1]
    for i in range(start, stop):
        of, to = x[i], y[i]
        for c in range(len(to)):
            z = widened(of[c])
            to[c] = narrowed(max(z, zero) + exp(min(z, zero)), to)


@loop
def _positive_backward(start, stop, constants, y, dy, dx):  # type: ignore[no-untyped-def]
    one = constants[0]
    for i in range(start, stop):
        of, slope, to = y[i], dy[i], dx[i]
        for c in range(len(to)):
            to[c] = narrowed(widened(slope[c]) * min(widened(of[c]), one), to)


@loop
def _log_sigmoid(start, stop, constants, x, y):  # type: ignore[no-untyped-def]
    scale = constants[0]
    for i in range(start, stop):
        of, to = x[i], y[i]
        for c in range(len(to)):
            to[c] = -scale * softplus(-widened(of[c]))


@loop
def _log_sigmoid_backward(start, stop, constants, x, dy, dx):  # type: ignore[no-untyped-def]
    scale = constants[0]
    for i in range(start, stop):
        of, slope, to = x[i], dy[i], dx[i]
        for c in range(len(to)):
            to[c] = narrowed(scale * slope[c] * sigmoid(-widened(of[c])), to)
