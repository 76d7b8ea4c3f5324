"""`zoo.ops.elementwise.positive` as compiled loops over rows: y = max(x, 0) + e^{min(x, 0)},  dx = dy ⊙ min(y, 1)."""

from typing import Any

import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import as_matrix, narrowed, number, widened
from zoo.ops.cpu.jit import exp, loop
from zoo.ops.cpu.threads import once_differentiable, run
from zoo.ops.precision import promote

GRAIN = 16
"""Rows that one thread takes at least."""


def positive(x: Tensor) -> Tensor:
    """See `zoo.ops.elementwise.naive.positive`."""
    return CompiledPositive.apply(x)


class CompiledPositive(torch.autograd.Function):
    """`positive`, of which the backward pass needs no more than y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty(x.shape, dtype=x.dtype)
        _run(_positive, x, y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        dx = torch.empty(y.shape, dtype=y.dtype)
        _run(_positive_backward, y, dy, dx)
        return dx


def _run(kernel: Any, *tensors: Tensor) -> None:
    """`kernel` on 1 in the dtype that it computes in, and tensors (*N, d) as matrices."""
    matrices = [as_matrix(x) for x in tensors]
    run(kernel, len(matrices[0]), number(1, promote(tensors[0])), *matrices, grain=GRAIN)


@loop
def _positive(start, stop, one, x, y):  # type: ignore[no-untyped-def]
    zero = one - one
    for i in range(start, stop):
        of, to = x[i], y[i]
        for c in range(len(to)):
            z = widened(of[c])
            to[c] = narrowed(max(z, zero) + exp(min(z, zero)), to)


@loop
def _positive_backward(start, stop, one, y, dy, dx):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        of, slope, to = y[i], dy[i], dx[i]
        for c in range(len(to)):
            to[c] = narrowed(widened(slope[c]) * min(widened(of[c]), one), to)
