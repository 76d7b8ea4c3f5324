"""A few products of each row, in one pass forward and one back over x as it lies in memory, bfloat16 or wider."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.bfloat16 import narrowed, widened
from zoo.ops.cpu.jit import loop
from zoo.ops.cpu.matmul import aligned_zeros
from zoo.ops.cpu.threads import run

ROWS = 64
"""Of a work item; each has sums for dW of its own."""


class CompiledFew(torch.autograd.Function):
    """x Wᵀ (N, F) in the dtype of W (F, D), float32 or float64, from x (N, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        flops.count("linear", 2 * x.numel() * len(weight))
        ctx.save_for_backward(x, weight)
        y = weight.new_empty(len(x), len(weight))
        run(_forward, -(-len(x) // ROWS), x, weight, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        flops.count("linear", 4 * x.numel() * len(weight))
        items = -(-len(x) // ROWS)
        dx, dw = torch.empty_like(x), weight.new_empty(items, *weight.shape)
        run(_backward, items, x, weight, dy.contiguous(), dx, dw)
        return dx, dw.sum(0)


@loop
def _forward(start, stop, x, weight, y):  # type: ignore[no-untyped-def]
    (N, D), F = x.shape, len(weight)
    row, w = aligned_zeros(D, weight), aligned_zeros(F * D, weight)
    w[:] = weight.reshape(F * D)
    for i in range(start * ROWS, min(stop * ROWS, N)):
        x_ = x[i]
        for c in range(D):
            row[c] = widened(x_[c])
        for f in range(F):
            of, total = w[f * D : f * D + D], w[0] - w[0]
            for c in range(D):
                total += row[c] * of[c]
            y[i, f] = total


@loop
def _backward(start, stop, x, weight, dy, dx, dw):  # type: ignore[no-untyped-def]
    (N, D), F = x.shape, len(weight)
    row, slopes, w, sums = (
        aligned_zeros(D, weight),
        aligned_zeros(D, weight),
        aligned_zeros(F * D, weight),
        aligned_zeros(F * D, weight),
    )
    w[:] = weight.reshape(F * D)
    for item in range(start, stop):
        sums[:] = 0
        for i in range(item * ROWS, min((item + 1) * ROWS, N)):
            x_, dx_ = x[i], dx[i]
            for c in range(D):
                row[c] = widened(x_[c])
            slopes[:] = 0
            for f in range(F):
                of, more, slope = w[f * D : f * D + D], sums[f * D : f * D + D], dy[i, f]
                for c in range(D):
                    slopes[c] += slope * of[c]
                for c in range(D):
                    more[c] += slope * row[c]
            for c in range(D):
                dx_[c] = narrowed(slopes[c], dx_)
        dw[item] = sums.reshape(F, D)
