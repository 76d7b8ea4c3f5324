"""`zoo.ops.rotation` as compiled loops over steps: the gradient turns back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import as_matrix, narrowed, widened
from zoo.ops.cpu.jit import loop
from zoo.ops.cpu.threads import run

GRAIN = 16
"""Steps that one thread takes at least."""


class CompiledRotation(torch.autograd.Function):
    """`naive.rotate`, without gradients of the numbers that turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
        ctx.save_for_backward(real, imaginary)
        return _rotated(x, real, imaginary)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        real, imaginary = ctx.saved_tensors
        return _rotated(dy, real, -imaginary), None, None


def _rotated(x: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype)
    run(_rotate, x.shape[0] * x.shape[1], as_matrix(x), real, imaginary, as_matrix(y), grain=GRAIN)
    return y


@loop
def _rotate(start, stop, x, real, imaginary, y):  # type: ignore[no-untyped-def]
    B, T, _ = real.shape
    for i in range(start, stop):
        b, t = min(i // T, B - 1), i % T
        of, to, re, im = x[i], y[i], real[b, t], imaginary[b, t]
        for j in range(len(re)):
            one, two = widened(of[2 * j]), widened(of[2 * j + 1])
            to[2 * j] = narrowed(one * re[j] - two * im[j], to)
            to[2 * j + 1] = narrowed(two * re[j] + one * im[j], to)
