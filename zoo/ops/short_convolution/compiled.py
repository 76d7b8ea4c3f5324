"""The short causal convolution as a compiled loop: one pass over time forward, and one backward that saves only x.

    p_t = b + Σ_{j<W} w_j ⊙ x_{t−W+1+j},    y_t = p_t, or SiLU(p_t) = p_t σ(p_t)
    dp_t = dy_t, or dy_t σ(p_t) (1 + p_t (1 − σ(p_t))),    dx_{t−W+1+j} += w_j ⊙ dp_t,    dw_j += dp_t ⊙ x_{t−W+1+j}

x may be bfloat16: it is read as it lies in memory, and its gradient is written so, as is y if it is to be narrow. All
else is float32 at least.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.bfloat16 import array, memory, narrowed, widened
from zoo.ops.loops import exp, inlined, loop
from zoo.ops.threads import run


def _block(W: int) -> tuple[int, int]:
    """Steps that are in work at once, and channels that one call of a loop takes through time together, at most.

    What they need, of the W − 1 steps before them too, should stay in the innermost cache.
    """
    return (8, 256) if W <= 8 else (32, 64)


class CompiledShortConvolution(torch.autograd.Function):
    """y (B, T, D) from x (B, T, D), weight (W, D), bias (D), before (B, W − 1, D) and how many steps of each row count:
    those behind are zeros.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        before: Tensor,
        lengths: Tensor,
        silu: bool,
        narrow: bool = False,
    ) -> Tensor:
        flops.count("short_convolution", 2 * x.numel() * len(weight))
        (B, T, D), x = x.shape, x if x.stride(2) == 1 else x.contiguous()
        y = torch.empty(B, T, D, dtype=x.dtype if narrow else weight.dtype)
        flat, strides = memory(x), x.stride()[:2]
        arrays = [array(t) for t in (weight, bias, before, lengths, y)]
        steps, channels = _block(len(weight))
        run(_forward, B * -(-D // channels), steps, channels, flat, *strides, *arrays, silu)
        ctx.save_for_backward(x, weight, bias, before, lengths)
        ctx.silu = silu
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, before, lengths = ctx.saved_tensors
        (B, T, D), W = x.shape, len(weight)
        flops.count("short_convolution", 4 * x.numel() * W)
        flat, strides = memory(x), x.stride()[:2]
        dx, d_before = torch.empty(B, T, D, dtype=x.dtype), before.new_empty(before.shape)
        dw, db = weight.new_empty(B, W, D), weight.new_empty(B, D)
        arrays = [array(t) for t in (weight, bias, before, lengths, dy)]
        outputs = [memory(dx), *(array(t) for t in (d_before, dw, db))]
        steps, channels = _block(W)
        run(_backward, B * -(-D // channels), steps, channels, flat, *strides, *arrays, ctx.silu, *outputs)
        return dx, dw.sum(0), db.sum(0), d_before, None, None, None


@loop
def _forward(start, stop, span, channels, x, row, step, weight, bias, before, lengths, y, silu):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (b, block) takes the channels of a block through all steps of row b."""
    _, T, D = y.shape
    W = len(weight)
    C, blocks, one = min(channels, D), -(-D // channels), weight.dtype.type(1)
    w = np.zeros(W * C, weight.dtype)
    line = np.zeros((span + W - 1) * C, weight.dtype)
    bias_, p = np.zeros(C, weight.dtype), np.zeros(C, weight.dtype)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * channels
        size = min(channels, D - first)
        bias_[:size] = bias[first : first + size]
        _rows(weight, first, size, C, w)
        _rows(before[b], first, size, C, line)
        for origin in range(0, T, span):
            steps = min(span, T - origin)
            _fill(x[b * row + first :], step, origin, steps, lengths[b], size, C, line[(W - 1) * C :])
            for t in range(steps):
                _sum(w, line[t * C :], bias_, W, p)
                if silu:
                    for c in range(C):
                        p[c] = p[c] / (one + exp(-p[c]))
                y_ = y[b, origin + t, first : first + size]
                for c in range(len(y_)):
                    y_[c] = narrowed(p[c], y_)
            _shift(line, steps, W, C)


@inlined
def _rows(x, first, size, C, rows):  # type: ignore[no-untyped-def]
    for j in range(len(x)):
        rows[j * C : j * C + size] = x[j, first : first + size]


@inlined
def _fill(x, step, origin, steps, length, size, C, line):  # type: ignore[no-untyped-def]
    for t in range(steps):
        to = line[t * C : t * C + size]
        if origin + t < length:
            of = x[(origin + t) * step : (origin + t) * step + size]
            for c in range(len(to)):
                to[c] = widened(of[c])
        else:
            to[:] = 0


@inlined
def _sum(w, line, bias, W, p):  # type: ignore[no-untyped-def]
    C = len(p)
    for c in range(C):
        p[c] = bias[c]
    for j in range(W):
        at = j * C
        for c in range(C):
            p[c] += w[at + c] * line[at + c]


@inlined
def _shift(line, steps, W, C):  # type: ignore[no-untyped-def]
    """The last W − 1 rows of a span are the first of the next."""
    for i in range((W - 1) * C):
        line[i] = line[i + steps * C]


@loop
def _backward(start, stop, span, channels, x, row, step, weight, bias, before, lengths, dy, silu, dx, d_before, dw, db):  # type: ignore[no-untyped-def]
    _, T, D = dy.shape
    W = len(weight)
    C, blocks, one = min(channels, D), -(-D // channels), weight.dtype.type(1)
    w, dw_ = np.zeros(W * C, weight.dtype), np.zeros(W * C, weight.dtype)
    line = np.zeros((span + W - 1) * C, weight.dtype)
    d_line = np.zeros((span + W - 1) * C, weight.dtype)
    bias_, p = np.zeros(C, weight.dtype), np.zeros(C, weight.dtype)
    db_, dp = np.zeros(C, weight.dtype), np.zeros(C, weight.dtype)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * channels
        size = min(channels, D - first)
        bias_[:size] = bias[first : first + size]
        _rows(weight, first, size, C, w)
        _rows(before[b], first, size, C, line)
        d_line[:] = 0
        dw_[:] = 0
        db_[:] = 0
        dp[size:] = 0
        for origin in range(0, T, span):
            steps = min(span, T - origin)
            _fill(x[b * row + first :], step, origin, steps, lengths[b], size, C, line[(W - 1) * C :])
            for t in range(steps):
                x_, dx_ = line[t * C :], d_line[t * C :]
                dy_ = dy[b, origin + t, first : first + size]
                for c in range(len(dy_)):
                    dp[c] = widened(dy_[c])
                if silu:
                    _sum(w, x_, bias_, W, p)
                    for c in range(C):
                        gate = one / (one + exp(-p[c]))
                        dp[c] *= gate * (one + p[c] * (one - gate))
                for c in range(C):
                    db_[c] += dp[c]
                for j in range(W):
                    at = j * C
                    for c in range(C):
                        dw_[at + c] += dp[c] * x_[at + c]
                        dx_[at + c] += dp[c] * w[at + c]
            # All that reaches the first `steps` rows has: they stand W − 1 before the steps of this span.
            _emit(d_line, origin - (W - 1), steps, lengths[b], size, first, d_before[b], dx[b * T * D + first :], D, C)
            _shift(line, steps, W, C)
            _shift(d_line, steps, W, C)
            d_line[(W - 1) * C :] = 0
        _emit(d_line, T - (W - 1), W - 1, lengths[b], size, first, d_before[b], dx[b * T * D + first :], D, C)
        for j in range(W):
            dw[b, j, first : first + size] = dw_[j * C : j * C + size]
        db[b, first : first + size] = db_[:size]


@inlined
def _emit(d_line, origin, steps, length, size, first, d_before, dx, D, C):  # type: ignore[no-untyped-def]
    for i in range(steps):
        t = origin + i
        of = d_line[i * C : i * C + size]
        if t < 0:
            d_before[len(d_before) + t, first : first + size] = of
        elif t < length:
            to = dx[t * D : t * D + size]
            for c in range(len(to)):
                to[c] = narrowed(of[c], to)
        else:
            dx[t * D : t * D + size] = 0
