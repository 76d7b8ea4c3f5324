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
from zoo.ops.cpu.bfloat16 import memory
from zoo.ops.cpu.jit import inlined, loop
from zoo.ops.cpu.matmul import aligned_zeros
from zoo.ops.cpu.simd import (
    broadcast,
    lanes,
    load,
    load_partial,
    prefetch,
    store,
    store_partial,
    sum_lanes,
    vec_sigmoid,
)
from zoo.ops.cpu.threads import run
from zoo.ops.norms.naive import SMALLEST_SQUARE
from zoo.ops.short_convolution.naive import Unit

FOUR = 4
"""Taps that are in work at once."""
AHEAD = 8
"""Steps between one that is worked on and one that is fetched."""


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
        # Steps in work at once, and channels that go through time together: they should stay in the innermost cache.
        span, width = (16, 256) if len(weight) <= 2 * FOUR else (32, 64)
        width = D // len(unit.scales) if unit else min(width, D)
        heads = -(-D // width)
        ctx.work = B * heads, span, width, silu
        norm = weight.new_tensor([SMALLEST_SQUARE, *(unit.scales if unit else [0] * heads)])
        flat, strides = memory(x), x.stride()[:2]
        run(_forward, *ctx.work, flat, *strides, weight, bias, before, lengths, norm, y)
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
        run(_backward, *ctx.work, flat, *strides, *arrays, *outputs)
        return dx, dw.sum(0), db.sum(0), d_before, None, None, None, None


@loop
def _forward(  # type: ignore[no-untyped-def]
    start, stop, span, width, silu, x, row, step, weight, bias, before, lengths, norm, y
):  # fmt: skip
    """Work items start … stop − 1: item (b, h) takes the channels of a head through all steps of row b."""
    _, T, D = y.shape
    n, W, y_, one, least = lanes(weight), len(weight), y.reshape(y.size), weight.dtype.type(1), norm[0]
    heads, C, taps = -(-D // width), _apart(width, n), -(-W // FOUR) * FOUR
    w, rows, bias_, p = (
        aligned_zeros(taps * C, weight),
        aligned_zeros((span + taps - 1) * C, weight),
        aligned_zeros(C, weight),
        aligned_zeros(C, weight),
    )
    older = aligned_zeros(C, weight) if taps > FOUR else bias_
    for item in range(start, stop):
        b, h = item // heads, item % heads
        first = h * width
        size, scale = min(width, D - first), norm[1 + h]
        rows[:] = 0
        _take(weight, first, size, C, w[(taps - W) * C :])
        _take(bias.reshape(1, D), first, size, C, bias_)
        _take(before[b], first, size, C, rows[(taps - W) * C :])
        for origin in range(0, T, span):
            steps = min(span, T - origin)
            for t in range(steps):
                of, to = b * row + (origin + t) * step + first, (b * T + origin + t) * D + first
                there, at, squares = size if origin + t < lengths[b] else 0, t * C, broadcast(least - least)
                if taps > FOUR:
                    _earlier(bias_, w, rows, at, taps, C, older)
                prefetch(x, of + AHEAD * step, size)
                prefetch(y_, to + AHEAD * D, size)
                for c in range(0, size, n):
                    new = load_partial(x, of + c, there - c)
                    store(new, rows, (t + taps - 1) * C + c)
                    a = load(older, c) + _four(w, (taps - FOUR) * C + c, rows, at + (taps - FOUR) * C + c, new, C)
                    if silu:
                        a = a * vec_sigmoid(a)
                    squares = squares + a * a
                    store(a, p, c)
                factor = broadcast(scale / np.sqrt(sum_lanes(squares) + least) if scale != 0 else one)
                for c in range(0, size, n):
                    store_partial(factor * load(p, c), y_, to + c, size - c)
            _shift(rows, steps, taps, C)


@inlined
def _apart(width, n):  # type: ignore[no-untyped-def]
    """Numbers from a row to the next: a line more than they need, since what is stored and what is loaded a power of
    two apart is taken for the same until it proves not to be."""
    return -(-width // n) * n + n


@inlined
def _take(x, first, size, C, to):  # type: ignore[no-untyped-def]
    """`size` channels of rows of x as rows of `to`, C apart."""
    for j in range(len(x)):
        to[j * C : j * C + size] = x[j, first : first + size]


@inlined
def _four(w, u, rows, v, newest, C):  # type: ignore[no-untyped-def]
    """Σ_j w_j ⊙ rows_j of three lines, C apart, and of the newest."""
    early = load(w, u) * load(rows, v) + load(w, u + C) * load(rows, v + C)
    return early + load(w, u + 2 * C) * load(rows, v + 2 * C) + load(w, u + 3 * C) * newest


@inlined
def _earlier(start, w, rows, at, taps, C, to):  # type: ignore[no-untyped-def]
    """to = start + Σ_j w_j ⊙ rows_j over all taps but the last four."""
    for c in range(0, C, lanes(to)):
        sums = load(start, c)
        for j in range(0, (taps - FOUR) * C, FOUR * C):
            u, v = j + c, at + j + c
            sums = sums + _four(w, u, rows, v, load(rows, v + 3 * C), C)
        store(sums, to, c)


@inlined
def _correlate(dp, rows, span, taps, C, dw, db):  # type: ignore[no-untyped-def]
    """dw_j += Σ_{t<span} dp_t ⊙ rows_{t+j} and db += Σ_{t<span} dp_t."""
    for c in range(0, C, lanes(dp)):
        shift = load(db, c)
        for t in range(span):
            shift = shift + load(dp, t * C + c)
        store(shift, db, c)
        for j in range(0, taps, FOUR):
            u = j * C + c
            s0, s1, s2, s3 = load(dw, u), load(dw, u + C), load(dw, u + 2 * C), load(dw, u + 3 * C)
            for t in range(span):
                d, v = load(dp, t * C + c), t * C + u
                s0, s1 = s0 + d * load(rows, v), s1 + d * load(rows, v + C)
                s2, s3 = s2 + d * load(rows, v + 2 * C), s3 + d * load(rows, v + 3 * C)
            store(s0, dw, u)
            store(s1, dw, u + C)
            store(s2, dw, u + 2 * C)
            store(s3, dw, u + 3 * C)


@inlined
def _shift(rows, steps, taps, C):  # type: ignore[no-untyped-def]
    """The last rows of a span are what stands before the next."""
    for c in range(0, (taps - 1) * C, lanes(rows)):
        store(load(rows, steps * C + c), rows, c)


@loop
def _backward(  # type: ignore[no-untyped-def]
    start, stop, span, width, silu, x, row, step, weight, bias, before, lengths, norm, dy, dx, d_before, dw, db
):  # fmt: skip
    _, T, D = dy.shape
    n, W, one, least = lanes(weight), len(weight), weight.dtype.type(1), norm[0]
    dy_, d_before_, ones, zero = (
        dy.reshape(dy.size),
        d_before.reshape(d_before.size),
        broadcast(one),
        broadcast(one - one),
    )
    heads, C, taps = -(-D // width), _apart(width, n), -(-W // FOUR) * FOUR
    w, back, dw_ = aligned_zeros(taps * C, weight), aligned_zeros(taps * C, weight), aligned_zeros(taps * C, weight)
    rows, d_rows = aligned_zeros((span + taps - 1) * C, weight), aligned_zeros((span + taps - 1) * C, weight)
    bias_, zeros, db_, p, slope = (
        aligned_zeros(C, weight), aligned_zeros(C, weight), aligned_zeros(C, weight), aligned_zeros(C, weight), aligned_zeros(C, weight)
    )  # fmt: skip
    older = aligned_zeros(C, weight) if taps > FOUR else bias_
    d_older = aligned_zeros(C, weight) if taps > FOUR else zeros
    last, newest = (taps - FOUR) * C, (taps - 1) * C
    for item in range(start, stop):
        b, h = item // heads, item % heads
        first = h * width
        size, scale = min(width, D - first), norm[1 + h]
        rows[:] = 0
        d_rows[:] = 0
        dw_[:] = 0
        db_[:] = 0
        _take(weight, first, size, C, w[(taps - W) * C :])
        _take(weight[::-1], first, size, C, back)
        _take(bias.reshape(1, D), first, size, C, bias_)
        _take(before[b], first, size, C, rows[(taps - W) * C :])
        for origin in range(0, T + taps - 1, span):
            steps = max(min(span, T - origin), 0)
            for t in range(steps):
                of, to = b * row + (origin + t) * step + first, (b * T + origin + t) * D + first
                there, at, now = size if origin + t < lengths[b] else 0, t * C, t * C + newest
                squares, met = zero, zero
                prefetch(x, of + AHEAD * step, size)
                prefetch(dy_, to + AHEAD * D, size)
                prefetch(dx, to + AHEAD * D, size)
                if taps > FOUR:
                    _earlier(bias_, w, rows, at, taps, C, older)
                for c in range(0, size, n):
                    new, da = load_partial(x, of + c, there - c), load_partial(dy_, to + c, size - c)
                    store(new, rows, now + c)
                    a = load(older, c) + _four(w, last + c, rows, at + last + c, new, C)
                    if silu:
                        gate, z = vec_sigmoid(a), a
                        a = z * gate
                        store(gate * (ones + z - a), slope, c)
                    squares, met = squares + a * a, met + a * da
                    store(a, p, c)
                    store(da, d_rows, now + c)
                own, along = ones, zero
                if scale != 0:
                    r = one / np.sqrt(sum_lanes(squares) + least)
                    own, along = broadcast(scale * r), broadcast(scale * r * r * r * sum_lanes(met))
                for c in range(0, size, n):
                    d = own * load(d_rows, now + c) - along * load(p, c)
                    store(d * load(slope, c) if silu else d, d_rows, now + c)
            d_rows[newest + steps * C :] = 0
            _correlate(d_rows[newest:], rows, span, taps, C, dw_, db_)
            # All that reaches the first `span` rows has: they stand taps − 1 before the steps of this span.
            for t in range(max(taps - W - origin, 0), min(span, T + taps - 1 - origin)):
                s, at = origin + t - (taps - 1), t * C
                to, early = (b * T + s) * D + first, (b * (W - 1) + W - 1 + s) * D + first
                if taps > FOUR:
                    _earlier(zeros, back, d_rows, at, taps, C, d_older)
                for c in range(0, size, n):
                    v = at + last + c
                    d = load(d_older, c) + _four(back, last + c, d_rows, v, load(d_rows, v + 3 * C), C)
                    if s < 0:
                        store_partial(d, d_before_, early + c, size - c)
                    else:
                        store_partial(d if s < lengths[b] else zero, dx, to + c, size - c)
            _shift(rows, span, taps, C)
            _shift(d_rows, span, taps, C)
        for j in range(W):
            dw[b, j, first : first + size] = dw_[(taps - W + j) * C : (taps - W + j) * C + size]
        db[b, first : first + size] = db_[:size]
