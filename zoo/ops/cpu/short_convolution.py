"""The short causal convolution as a compiled loop: one pass over time forward, and one backward that saves only x.

    p_t = b + Σ_{j<W} w_j ⊙ x_{t−W+1+j},    a_t = p_t, or SiLU(p_t) = p_t σ(p_t)
    y_t = a_t, or of a head with a length c ≠ 0 c r a_t with r = 1 / √(|a_t|² + 1e-6)
    da_t = dy_t, or of such a head c r (dy_t − r² (a_t·dy_t) a_t),    dp_t = da_t, or da_t σ(p_t) (1 + p_t − a_t)
    dx_s = Σ_{j<W} w_j ⊙ dp_{s+W−1−j},    dw_j = Σ_t dp_t ⊙ x_{t−W+1+j},    db = Σ_t dp_t

x may be bfloat16: it is read as it lies in memory, and its gradient is written so, as is y if it is to be narrow. All
else is float32 at least.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.bfloat16 import Rows, offset, rows
from zoo.ops.cpu.jit import copy, inlined, loop, rsqrt
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
from zoo.ops.cpu.threads import once_differentiable, run
from zoo.ops.norms.naive import SMALLEST_SQUARE
from zoo.ops.short_convolution.naive import Unit

CHANNELS = 256
"""Channels that go through time together, where they are not those of a head."""
AHEAD = 8
"""Steps between one that is worked on and one that is fetched."""

# The last W inputs of a head are kept in a ring of W rows, that of step t in row k = t mod W. As input t − W + 1 + j is
# in row k + 1 + j mod W, row s meets weight W − 1 − k + s of two copies of the weights, one after the other. The last W
# of dp stand in such a ring as well, which meets the weights in reverse.


def short_convolution(
    x: Tensor, w: Tensor, bias: Tensor, before: Tensor, silu: bool, unit: Unit | None, narrow: bool
) -> Tensor:
    """`naive.short_convolution` of x in bfloat16, or as all others in float32 or float64."""
    x = x if w.dtype is torch.float32 else x.to(w.dtype)
    return CompiledShortConvolution.apply(x, w.T, bias, before, silu, unit, narrow)


class Inputs(NamedTuple):
    x: Rows  # (B, 1, T, D)
    weight: Tensor  # (W, D)
    bias: Tensor  # (D,)
    before: Tensor  # (B, W − 1, D)
    scales: Tensor  # (heads,): the length of a head's vectors, or 0
    width: int  # of a head
    silu: bool


class Gradients(NamedTuple):
    y: Tensor  # (B, T, D)
    x: Tensor
    before: Tensor  # (B, W − 1, D)
    weight: Tensor  # (B, W, D)
    bias: Tensor  # (B, D)


class CompiledShortConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, before: Tensor, silu: bool, unit: Unit | None, narrow: bool
    ) -> Tensor:
        flops.count("short_convolution", 2 * x.numel() * len(weight))
        (B, T, D), x = x.shape, x if x.stride(2) == 1 else x.contiguous()
        ctx.width, ctx.silu = D // len(unit.scales) if unit else min(CHANNELS, D), silu
        scales = weight.new_tensor(unit.scales) if unit else weight.new_zeros(-(-D // max(ctx.width, 1)))
        y = x.new_empty(B, T, D, dtype=x.dtype if narrow else weight.dtype)
        ctx.save_for_backward(x, weight, bias, before, scales)
        run(_forward, B * len(scales), _inputs((x, weight, bias, before, scales), ctx.width, silu), y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x = _inputs(ctx.saved_tensors, ctx.width, ctx.silu)
        (B, T, D), W = dy.shape, len(x.weight)
        flops.count("short_convolution", 4 * dy.numel() * W)
        dx, d_before = x.x.memory.new_empty(B, T, D), x.before.new_empty(x.before.shape)
        d = Gradients(y=dy, x=dx, before=d_before, weight=d_before.new_empty(B, W, D), bias=d_before.new_empty(B, D))
        run(_backward, B * len(x.scales), x, d)
        return dx, d.weight.sum(0), d.bias.sum(0), d_before, None, None, None


def _inputs(saved: tuple[Tensor, ...], width: int, silu: bool) -> Inputs:
    x, weight, bias, before, scales = saved
    return Inputs(x=rows(x[:, None]), weight=weight, bias=bias, before=before, scales=scales, width=width, silu=silu)


@loop
def _forward(start, stop, x, y):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (b, h) takes the channels of a head through all steps of row b."""
    _, T, D = y.shape
    w, n, W, C = x.weight, lanes(x.weight), len(x.weight), _apart(x)
    weights, ring = aligned_zeros(2 * W * C, w), aligned_zeros(W * C, w)
    bias, a, y_ = aligned_zeros(C, w), aligned_zeros(C, w), y.reshape(y.size)
    one, least = w.dtype.type(1), w.dtype.type(SMALLEST_SQUARE)
    for item in range(start, stop):
        b, h = item // len(x.scales), item % len(x.scales)
        first, size, scale = _begin(x, b, h, C, weights, bias, ring)
        for t in range(T):
            k, of, to, squares = t % W, offset(x.x, b, 0, t) + first, (b * T + t) * D + first, broadcast(one - one)
            prefetch(x.x.memory, of + AHEAD * x.x.step, size)
            prefetch(y_, to + AHEAD * D, size)
            for c in range(0, size, n):
                store(load_partial(x.x.memory, of + c, size - c), ring, k * C + c)
                z = load(bias, c) + _sum(weights[(W - 1 - k) * C :], ring, c, W, C)
                z = z * vec_sigmoid(z) if x.silu else z
                squares = squares + z * z
                store(z, a, c)
            r = rsqrt(sum_lanes(squares) + least)
            factor = broadcast(scale * r if scale != 0 else one)
            for c in range(0, size, n):
                store_partial(factor * load(a, c), y_, to + c, size - c)


@loop
def _backward(start, stop, x, d):  # type: ignore[no-untyped-def]
    _, T, D = d.y.shape
    w, n, W, C = x.weight, lanes(x.weight), len(x.weight), _apart(x)
    one, least = w.dtype.type(1), w.dtype.type(SMALLEST_SQUARE)
    weights, back, dw = aligned_zeros(2 * W * C, w), aligned_zeros(2 * W * C, w), aligned_zeros(2 * W * C, w)
    ring, d_ring, bias, db = aligned_zeros(W * C, w), aligned_zeros(W * C, w), aligned_zeros(C, w), aligned_zeros(C, w)
    a, slope, zero, ones = aligned_zeros(C, w), aligned_zeros(C, w), broadcast(one - one), broadcast(one)
    dy, dx, d_before = d.y.reshape(d.y.size), d.x.reshape(d.x.size), d.before.reshape(d.before.size)
    for item in range(start, stop):
        b, h = item // len(x.scales), item % len(x.scales)
        first, size, scale = _begin(x, b, h, C, weights, bias, ring)
        _load_rows(w[::-1], first, size, C, back)
        _load_rows(w[::-1], first, size, C, back[W * C :])
        dw[:] = 0
        db[:] = 0
        d_ring[:] = 0
        for t in range(T + W - 1):
            at, now, squares, along = (W - 1 - t % W) * C, t % W * C, zero, zero
            of, to = offset(x.x, b, 0, t) + first, (b * T + t) * D + first
            prefetch(x.x.memory, of + AHEAD * x.x.step, size)
            prefetch(dy, to + AHEAD * D, size)
            for c in range(0, size if t < T else 0, n):
                store(load_partial(x.x.memory, of + c, size - c), ring, now + c)
                z, da = load(bias, c) + _sum(weights[at:], ring, c, W, C), load_partial(dy, to + c, size - c)
                if x.silu:
                    p, gate = z, vec_sigmoid(z)
                    z = p * gate
                    store(gate * (ones + p - z), slope, c)
                squares, along = squares + z * z, along + z * da
                store(z, a, c)
                store(da, d_ring, now + c)
            r = rsqrt(sum_lanes(squares) + least)
            own, share = broadcast(scale * r if scale != 0 else one), broadcast(scale * r * r * r * sum_lanes(along))
            for c in range(0, size, n):
                dp = own * load(d_ring, now + c) - share * load(a, c) if scale != 0 else load(d_ring, now + c)
                dp = dp * load(slope, c) if x.silu else dp
                dp = dp if t < T else zero
                store(dp, d_ring, now + c)
                store(load(db, c) + dp, db, c)
                for s in range(c, W * C, C):
                    store(load(dw, at + s) + dp * load(ring, s), dw, at + s)
            for c in range(0, size, n):
                dz = _sum(back[at:], d_ring, c, W, C)
                if t < W - 1:
                    store_partial(dz, d_before, (b * (W - 1) + t) * D + first + c, size - c)
                else:
                    store_partial(dz, dx, to - (W - 1) * D + c, size - c)
        for j in range(W):
            to_weight = d.weight[b, j, first : first + size]
            for c in range(size):
                to_weight[c] = dw[j * C + c] + dw[(W + j) * C + c]
        copy(db, d.bias[b, first : first + size])


@inlined
def _apart(x):  # type: ignore[no-untyped-def]
    """Numbers from a row to the next: a vector more than they need, since what is stored and what is loaded a power of
    two apart is taken for the same until it proves not to be."""
    n = lanes(x.weight)
    return -(-x.width // n) * n + n


@inlined
def _begin(x, b, h, C, weights, bias, ring):  # type: ignore[no-untyped-def]
    """Load what a head begins with. Returns its first channel, how many it has, and its scale."""
    W, D = x.weight.shape
    first = h * x.width
    size = min(x.width, D - first)
    _load_rows(x.weight, first, size, C, weights)
    _load_rows(x.weight, first, size, C, weights[W * C :])
    _load_rows(x.bias.reshape(1, D), first, size, C, bias)
    _load_rows(x.before[b], first, size, C, ring[C:])
    return first, size, x.scales[h]


@inlined
def _load_rows(x, first, size, C, to):  # type: ignore[no-untyped-def]
    """`size` channels of rows of x as rows of `to`, C apart."""
    for j in range(len(x)):
        copy(x[j, first : first + size], to[j * C : j * C + size])


@inlined
def _sum(weights, ring, c, W, C):  # type: ignore[no-untyped-def]
    """Σ_j w_j ⊙ row_j of one vector of channels."""
    y = load(weights, c) * load(ring, c)
    if W == 4:  # as most have: no loop
        y = y + load(weights, c + C) * load(ring, c + C)
        return y + load(weights, c + 2 * C) * load(ring, c + 2 * C) + load(weights, c + 3 * C) * load(ring, c + 3 * C)
    for s in range(c + C, W * C, C):
        y = y + load(weights, s) * load(ring, s)
    return y
