"""`zoo.ops.elementwise` as compiled loops over rows.

swiglu       dg = dy ⊙ u ⊙ σ(g) (1 + g (1 − σ(g))),  du = dy ⊙ SiLU(g)
positive     dx = dy ⊙ min(y, 1)
log_sigmoid  dx = c dy ⊙ σ(−x)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import as_matrix, narrowed, widened
from zoo.ops.cpu.jit import exp, loop, sigmoid, softplus
from zoo.ops.cpu.simd import broadcast, lanes, load_partial, prefetch, store_partial, vec_sigmoid
from zoo.ops.cpu.threads import run
from zoo.ops.precision import promote

AHEAD = 2
"""Rows between one that is worked on and one that is fetched."""
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


class CompiledPositive(torch.autograd.Function):
    """`naive.positive`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty(x.shape, dtype=x.dtype)
        _over_rows(_positive, x, y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        dx = torch.empty(y.shape, dtype=y.dtype)
        _over_rows(_positive_backward, y, dy, dx)
        return dx


class CompiledLogSigmoid(torch.autograd.Function):
    """`naive.log_sigmoid`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        y = torch.empty(x.shape, dtype=promote(x))
        _over_rows(_log_sigmoid, x, y, constant=scale)
        ctx.save_for_backward(x)
        ctx.scale = scale
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        dx = torch.empty(x.shape, dtype=x.dtype)
        _over_rows(_log_sigmoid_backward, x, dy, dx, constant=ctx.scale)
        return dx, None


def _over_rows(kernel: Any, *tensors: Tensor, constant: float = 1) -> None:
    """`kernel` on a constant in the dtype it computes in, and on tensors (*N, d) as rows."""
    constants, arrays = torch.tensor([constant], dtype=promote(tensors[0])), [as_matrix(x) for x in tensors]
    run(kernel, len(arrays[0]), constants, *arrays, grain=GRAIN)


@loop
def _swiglu(start, stop, constants, g, u, y):  # type: ignore[no-untyped-def]
    d, n = g.shape[1], lanes(g)
    for i in range(start, stop):
        prefetch(g, (i + AHEAD) * d, d)
        prefetch(u, (i + AHEAD) * d, d)
        prefetch(y, (i + AHEAD) * d, d)
        for c in range(0, d, n):
            at, size = i * d + c, d - c
            z = load_partial(g, at, size)
            store_partial(z * vec_sigmoid(z) * load_partial(u, at, size), y, at, size)


@loop
def _swiglu_backward(start, stop, constants, g, u, dy, dg, du):  # type: ignore[no-untyped-def]
    d, n, one = g.shape[1], lanes(g), broadcast(constants[0])
    for i in range(start, stop):
        prefetch(g, (i + AHEAD) * d, d)
        prefetch(u, (i + AHEAD) * d, d)
        prefetch(dy, (i + AHEAD) * d, d)
        prefetch(dg, (i + AHEAD) * d, d)
        prefetch(du, (i + AHEAD) * d, d)
        for c in range(0, d, n):
            at, size = i * d + c, d - c
            z, slope = load_partial(g, at, size), load_partial(dy, at, size)
            on = vec_sigmoid(z)
            store_partial(slope * z * on, du, at, size)
            store_partial(slope * load_partial(u, at, size) * on * (one + z * (one - on)), dg, at, size)


@loop
def _positive(start, stop, constants, x, y):  # type: ignore[no-untyped-def]
    zero = constants[0] - constants[0]
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
