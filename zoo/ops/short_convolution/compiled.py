"""The short causal convolution as a compiled loop: one pass over time forward, and one backward that saves only x.

    p_t = b + Σ_{j<W} w_j ⊙ x_{t−W+1+j},    a_t = p_t, or SiLU(p_t) = p_t σ(p_t)
    y_t = a_t, or of a head with a length c ≠ 0 c r a_t with r = 1 / √(|a_t|² + 1e-6)
    da_t = dy_t, or of such a head c r (dy_t − r² (a_t·dy_t) a_t),    dp_t = da_t, or da_t σ(p_t) (1 + p_t − a_t)
    dx_s = Σ_{j<W} w_j ⊙ dp_{s+W−1−j},    dw_j = Σ_t dp_t ⊙ x_{t−W+1+j},    db = Σ_t dp_t

x may be bfloat16: it is read as it lies in memory, and its gradient is written so, as is y if it is to be narrow. All
else is float32 at least.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.bfloat16 import memory, narrowed, widened
from zoo.ops.loops import inlined, loop, sigmoid
from zoo.ops.norms.naive import SMALLEST_SQUARE
from zoo.ops.products import room
from zoo.ops.short_convolution.naive import Unit
from zoo.ops.threads import run


def _block(W: int, K: int) -> tuple[int, int]:
    """Steps that are in work at once, four or a multiple, and channels that one call of a loop takes through time
    together: as many heads of K as there is room for.

    What they need, of the W − 1 steps before them too, should stay in the innermost cache.
    """
    steps, channels = (16, 256) if W <= 8 else (32, 64)
    return steps, max(channels // K, 1) * K


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
        unit: Unit | None = None,
    ) -> Tensor:
        flops.count("short_convolution", 2 * x.numel() * len(weight))
        (B, T, D), x = x.shape, x if x.stride(2) == 1 else x.contiguous()
        y = torch.empty(B, T, D, dtype=x.dtype if narrow else weight.dtype)
        ctx.silu, ctx.K = silu, 0 if unit is None else D // len(unit.scales)
        norm = weight.new_tensor([SMALLEST_SQUARE, *(() if unit is None else unit.scales)])
        flat, strides = memory(x), x.stride()[:2]
        arrays = [weight, bias, before, lengths, norm, y]
        steps, channels = _block(len(weight), ctx.K or 1)
        run(_forward, B * -(-D // channels), steps, channels, silu, ctx.K, flat, *strides, *arrays)
        ctx.save_for_backward(x, weight, bias, before, lengths, norm)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, before, lengths, norm = ctx.saved_tensors
        (B, T, D), W = x.shape, len(weight)
        flops.count("short_convolution", 4 * x.numel() * W)
        flat, strides = memory(x), x.stride()[:2]
        dx, d_before = torch.empty(B, T, D, dtype=x.dtype), before.new_empty(before.shape)
        dw, db = weight.new_empty(B, W, D), weight.new_empty(B, D)
        arrays = [weight, bias, before, lengths, norm, dy]
        outputs = [memory(dx), d_before, dw, db]
        steps, channels = _block(W, ctx.K or 1)
        run(_backward, B * -(-D // channels), steps, channels, ctx.silu, ctx.K, flat, *strides, *arrays, *outputs)
        return dx, dw.sum(0), db.sum(0), d_before, None, None, None, None


@loop
def _forward(  # type: ignore[no-untyped-def]
    start, stop, span, channels, silu, K, x, row, step, weight, bias, before, lengths, norm, y
):  # fmt: skip
    """Work items start … stop − 1: item (b, block) takes the channels of a block through all steps of row b."""
    _, T, D = y.shape
    W = len(weight)
    C, blocks, least = min(channels, D), -(-D // channels), norm[0]
    w = room(W * C, weight)
    line = room((span + W - 1) * C, weight)
    bias_, p = room(C, weight), room(C, weight)
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
                        p[c] *= sigmoid(p[c])
                if K > 0:
                    for at in range(0, size, K):
                        a, total, scale = p[at : at + K], least, norm[1 + (first + at) // K]
                        if scale != 0:
                            for c in range(K):
                                total += a[c] * a[c]
                            factor = scale / np.sqrt(total)
                            for c in range(K):
                                a[c] *= factor
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
    """p = b + Σ_{j<W} w_j ⊙ line_j, four taps at a time."""
    C = len(p)
    for c in range(C):
        p[c] = bias[c]
    for j in range(0, W - 3, 4):
        w0, w1, w2, w3 = w[j * C :], w[(j + 1) * C :], w[(j + 2) * C :], w[(j + 3) * C :]
        x0, x1, x2, x3 = line[j * C :], line[(j + 1) * C :], line[(j + 2) * C :], line[(j + 3) * C :]
        for c in range(C):
            p[c] += w0[c] * x0[c] + w1[c] * x1[c] + w2[c] * x2[c] + w3[c] * x3[c]
    for j in range(W - W % 4, W):
        w0, x0 = w[j * C :], line[j * C :]
        for c in range(C):
            p[c] += w0[c] * x0[c]


@inlined
def _correlate(dp, line, span, W, C, dw, db):  # type: ignore[no-untyped-def]
    """dw_j += Σ_{t<span} dp_t ⊙ line_{t+j} and db += Σ_{t<span} dp_t, four steps at a time."""
    for t in range(0, span, 4):
        d0, d1, d2, d3 = dp[t * C :], dp[(t + 1) * C :], dp[(t + 2) * C :], dp[(t + 3) * C :]
        for c in range(C):
            db[c] += d0[c] + d1[c] + d2[c] + d3[c]
    for j in range(W):
        dw_ = dw[j * C : j * C + C]
        for t in range(0, span, 4):
            d0, d1, d2, d3 = dp[t * C :], dp[(t + 1) * C :], dp[(t + 2) * C :], dp[(t + 3) * C :]
            at = (t + j) * C
            x0, x1, x2, x3 = line[at:], line[at + C :], line[at + 2 * C :], line[at + 3 * C :]
            for c in range(C):
                dw_[c] += d0[c] * x0[c] + d1[c] * x1[c] + d2[c] * x2[c] + d3[c] * x3[c]


@inlined
def _shift(line, steps, W, C):  # type: ignore[no-untyped-def]
    """The last W − 1 rows of a span are the first of the next."""
    for i in range((W - 1) * C):
        line[i] = line[i + steps * C]


@loop
def _backward(  # type: ignore[no-untyped-def]
    start, stop, span, channels, silu, K, x, row, step, weight, bias, before, lengths, norm, dy, dx, d_before, dw, db
):  # fmt: skip
    _, T, D = dy.shape
    W = len(weight)
    C, blocks, one, least = min(channels, D), -(-D // channels), weight.dtype.type(1), norm[0]
    w, back, dw_ = room(W * C, weight), room(W * C, weight), room(W * C, weight)
    line, d_line = room((span + W - 1) * C, weight), room((span + W - 1) * C, weight)
    bias_, zero, db_ = room(C, weight), room(C, weight), room(C, weight)
    p, dp, slope = room(C, weight), room(C, weight), room(C, weight)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * channels
        size = min(channels, D - first)
        bias_[:size] = bias[first : first + size]
        _rows(weight, first, size, C, w)
        _rows(weight[::-1], first, size, C, back)
        _rows(before[b], first, size, C, line)
        d_line[:] = 0
        dw_[:] = 0
        db_[:] = 0
        dp[size:] = 0
        dx_ = dx[b * T * D + first :]
        for origin in range(0, T + W - 1, span):
            steps = max(min(span, T - origin), 0)
            _fill(x[b * row + first :], step, origin, steps, lengths[b], size, C, line[(W - 1) * C :])
            for t in range(steps):
                dy_, to = dy[b, origin + t, first : first + size], d_line[(W - 1 + t) * C : (W + t) * C]
                for c in range(len(dy_)):
                    dp[c] = widened(dy_[c])
                if silu or K > 0:
                    _sum(w, line[t * C :], bias_, W, p)
                if silu:
                    for c in range(C):
                        gate = sigmoid(p[c])
                        a = p[c] * gate
                        slope[c] = gate * (one + p[c] - a)
                        p[c] = a
                if K > 0:
                    for at in range(0, size, K):
                        a_, da, total, met = p[at : at + K], dp[at : at + K], least, least - least
                        scale = norm[1 + (first + at) // K]
                        if scale != 0:
                            for c in range(K):
                                total += a_[c] * a_[c]
                                met += a_[c] * da[c]
                            r = one / np.sqrt(total)
                            own, along = scale * r, scale * r * r * r * met
                            for c in range(K):
                                da[c] = own * da[c] - along * a_[c]
                if silu:
                    for c in range(C):
                        to[c] = dp[c] * slope[c]
                else:
                    for c in range(C):
                        to[c] = dp[c]
            d_line[(W - 1 + steps) * C :] = 0
            _correlate(d_line[(W - 1) * C :], line, span, W, C, dw_, db_)
            # All that reaches the first `span` rows has: they stand W − 1 before the steps of this span.
            for t in range(min(span, T + W - 1 - origin)):
                _sum(back, d_line[t * C :], zero, W, p)
                _emit(p, origin + t - (W - 1), lengths[b], size, first, d_before[b], dx_, D)
            _shift(line, span, W, C)
            _shift(d_line, span, W, C)
        for j in range(W):
            dw[b, j, first : first + size] = dw_[j * C : j * C + size]
        db[b, first : first + size] = db_[:size]


@inlined
def _emit(p, t, length, size, first, d_before, dx, D):  # type: ignore[no-untyped-def]
    if t < 0:
        d_before[len(d_before) + t, first : first + size] = p[:size]
    elif t < length:
        to = dx[t * D : t * D + size]
        for c in range(len(to)):
            to[c] = narrowed(p[c], to)
    else:
        dx[t * D : t * D + size] = 0
