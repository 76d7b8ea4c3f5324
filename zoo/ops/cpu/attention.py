"""Plain softmax attention in loops that multiply, forward and back (Dao 2023, arXiv:2307.08691, algorithms 1 and 2).

For a block of queries and one of keys, all transposed so that keys are rows and no row has to be summed, in base 2:

    sᵀ = scale log₂e k qᵀ,    m ← max(m, max s),    pᵀ = 2^{sᵀ − m},    l ← 2^{m' − m} l + Σ p,
    oᵀ ← 2^{m' − m} oᵀ + vᵀ pᵀ

with m' the m before; at the end y = o / l and lse = m + log₂ l. Backward, with blocks of keys outside,

    pᵀ = 2^{sᵀ − lse},    dpᵀ = v dyᵀ,    dsᵀ = scale pᵀ (dpᵀ − δ),    δ = Σ dy y
    dv += pᵀ dy,    dk += dsᵀ q,    dqᵀ += kᵀ dsᵀ

Scores, p and ds exist for one pair of blocks at a time, in the caches and in float32. Products, see
`zoo.ops.cpu.matmul`, read them rounded and sum in float32. Threads take heads of keys.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import types
from torch import Tensor

from zoo.ops.cpu.bfloat16 import Rows, number, offset, rows, widened
from zoo.ops.cpu.intrinsics import by_type
from zoo.ops.cpu.jit import called, copy, exp2, loop
from zoo.ops.cpu.matmul import (
    aligned_zeros,
    enter,
    leave,
    pack_pairs,
    packed_pairs,
    padded,
    product,
    rounded,
    transpose_left,
    transpose_right,
)
from zoo.ops.cpu.matrices import load_rows, store_rows
from zoo.ops.cpu.threads import once_differentiable, run
from zoo.ops.linear_attention.naive import repeat
from zoo.ops.precision import promote


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
    """`zoo.ops.attention.naive.attend` of plain scores; where causal, the last query sees all keys."""
    heads = max(k.shape[1], v.shape[1])
    return TiledAttention.apply(q, repeat(k, heads), repeat(v, heads), causal, scale)


class TiledAttention(torch.autograd.Function):
    """y (B, H, T, V), which lies in memory as (B, T, H, V), from q (B, H, T, K), k (B, G, S, K) and v (B, G, S, V), all
    in the dtype of products.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
        (B, H, T, K), V, dtype = q.shape, v.shape[3], promote(q)
        factors = (number(x, dtype) for x in (scale, 1 / math.log(2), torch.finfo(dtype).min / 4))
        ctx.sizes = _Sizes(padded(K), padded(V), causal, *factors)
        y, lse = q.new_empty(B, T, H, V).transpose(1, 2), torch.empty(B, H, T, dtype=dtype)
        run(_attend, B * k.shape[1], ctx.sizes, _Tensors(*map(rows, (q, k, v, y))), lse)
        ctx.save_for_backward(q, k, v, y, lse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, lse = ctx.saved_tensors
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        given, grads = _Tensors(*map(rows, (q, k, v, y))), _Tensors(*map(rows, (dq, dk, dv, dy)))
        run(_gradients, len(k) * k.shape[1], ctx.sizes, given, grads, lse)
        return dq, dk, dv, None, None


class _Sizes(NamedTuple):
    """K and V, padded, and what else all of a call share; numbers in the dtype of scores."""

    K: int
    V: int
    causal: bool
    scale: Any
    log2e: Any
    lowest: Any
    """A score below all others, from which −∞ can be taken."""


class _Tensors(NamedTuple):
    """Inputs and output, or their gradients."""

    q: Rows
    k: Rows
    v: Rows
    y: Rows


@by_type
def side(kind: Any) -> Any:
    """Queries and keys of a block: products on tiles are worth larger ones, half of which is hidden at the diagonal."""
    return (lambda kind: 128) if kind.dtype == types.uint16 else lambda kind: 64


@loop
def _attend(start, stop, sizes, given, lse):  # type: ignore[no-untyped-def]
    (_, H, T), G, S, kind = lse.shape, given.k.H, given.k.T, given.q.memory
    C, K, V, past = side(kind), sizes.K, sizes.V, S - T if sizes.causal else 0
    R, blocks, key_blocks = H // G, -(-T // C), -(-S // C)
    # Of all keys of a head, block by block; then of a block of queries, and of a pair of blocks.
    keys, values = aligned_zeros(key_blocks * C * K, kind), aligned_zeros(key_blocks * V * C, kind)
    left, right = aligned_zeros(C * max(K, V), kind), aligned_zeros(C * max(K, V), kind)
    q_t, y_ = aligned_zeros(K * C, kind), aligned_zeros(V * C, kind)
    o, top = aligned_zeros(V * C, lse), aligned_zeros(C, lse)
    before, total = aligned_zeros(C, lse), aligned_zeros(C, lse)
    p, p_, p_right = aligned_zeros(C * C, lse), aligned_zeros(C * C, kind), aligned_zeros(C * C, kind)
    setup = enter(kind)
    for item in range(start, stop):
        b, g = item // G, item % G
        _load_keys(given, b, g, sizes, C, left, right, keys, values)
        for at in range(R * blocks):
            h, t = g * R + at // blocks, at % blocks * C
            load_rows(given.q, b, h, t, left[: C * K], K, C)
            transpose_right(left[: C * K], q_t, C, K)
            top[:], total[:] = sizes.lowest, 0
            for block in range(min(key_blocks, (t + C - 1 + past) // C + 1) if sizes.causal else key_blocks):
                x, z, first = block * C * K, block * V * C, block * C
                product(keys[x : x + C * K], q_t, p, C, C, K, False)
                _hide(p, C, S - first, first - t - past, sizes.causal, -np.inf)
                _update_softmax(p, C, sizes.scale * sizes.log2e, top, before, total)
                if block > 0:
                    _scale_columns(o, C, before)
                product(values[z : z + V * C], packed_pairs(rounded(p, p_), p_right, C, C), o, V, C, C, block > 0)
            for i in range(min(C, T - t)):
                lse[b, h, t + i] = top[i] + sizes.log2e * np.log(total[i])
            for i in range(C):
                total[i] = lse.dtype.type(1) / total[i]
            _scale_columns(o, C, total)
            means = packed_pairs(rounded(o, left[: V * C]), right[: V * C], V, C)
            transpose_left(means, y_, V, C)
            store_rows(y_, V, given.y, b, h, t)
    leave(setup, kind)


@called
def _load_keys(given, b, g, sizes, C, left, right, keys, values):  # type: ignore[no-untyped-def]
    """k of a head as left forms of blocks, and vᵀ."""
    K, V = sizes.K, sizes.V
    for first in range(0, given.k.T, C):
        x, z = first * K, first * V
        load_rows(given.k, b, g, first, keys[x : x + C * K], K, C)
        load_rows(given.v, b, g, first, left[: C * V], V, C)
        transpose_left(packed_pairs(left[: C * V], right[: C * V], C, V), values[z : z + V * C], C, V)


@called
def _hide(x, C, left, ahead, causal, value):  # type: ignore[no-untyped-def]
    """`value` for keys that are not there (from `left` on), or come after a query: key 0 is `ahead` of query 0."""
    for key in range(C):
        row = x[key * C : key * C + C]
        blind = C if key >= left else key + ahead if causal else 0
        for i in range(min(blind, C)):
            row[i] = value


@called
def _update_softmax(s, C, steep, top, before, total):  # type: ignore[no-untyped-def]
    """From scores to p; m, l, and 2^{m' − m} in the place of m'."""
    copy(top, before)
    for key in range(C):
        row = s[key * C : key * C + C]
        for i in range(C):
            row[i] *= steep
            top[i] = max(top[i], row[i])
    for i in range(C):
        before[i] = exp2(before[i] - top[i])
        total[i] *= before[i]
    for key in range(C):
        row = s[key * C : key * C + C]
        for i in range(C):
            row[i] = exp2(row[i] - top[i])
            total[i] += row[i]


@called
def _scale_columns(x, C, factors):  # type: ignore[no-untyped-def]
    for first in range(0, len(x), C):
        row = x[first : first + C]
        for i in range(C):
            row[i] *= factors[i]


@loop
def _gradients(start, stop, sizes, given, grads, lse):  # type: ignore[no-untyped-def]
    (_, H, T), G, S, kind = lse.shape, given.k.H, given.k.T, given.q.memory
    C, K, V, past = side(kind), sizes.K, sizes.V, S - T if sizes.causal else 0
    R, blocks = H // G, -(-T // C)
    # Of all queries to a head of keys, block by block.
    every = R * blocks * C
    q_right, q_t = aligned_zeros(every * K, kind), aligned_zeros(every * K, kind)
    dy_right, dy_t = aligned_zeros(every * V, kind), aligned_zeros(every * V, kind)
    norm, delta, dq_t = aligned_zeros(every, lse), aligned_zeros(every, lse), aligned_zeros(every * K, lse)
    # Of a block of keys, and of a pair of blocks.
    k_, k_right, k_t = aligned_zeros(C * K, kind), aligned_zeros(C * K, kind), aligned_zeros(K * C, kind)
    v_, dk, dv = aligned_zeros(C * V, kind), aligned_zeros(C * K, lse), aligned_zeros(C * V, lse)
    p, dp, p_ = aligned_zeros(C * C, lse), aligned_zeros(C * C, lse), aligned_zeros(C * C, kind)
    ds_, ds_right = aligned_zeros(C * C, kind), aligned_zeros(C * C, kind)
    setup = enter(kind)
    for item in range(start, stop):
        b, g = item // G, item % G
        for at in range(R * blocks):
            h, t, own = g * R + at // blocks, at % blocks * C, slice(at * C, at * C + C)
            x, z = slice(at * C * K, at * C * K + C * K), slice(at * C * V, at * C * V + C * V)
            load_rows(given.q, b, h, t, k_, K, C)
            transpose_right(k_, q_t[x], C, K)
            pack_pairs(k_, q_right[x], C, K)
            load_rows(grads.y, b, h, t, v_, V, C)
            transpose_right(v_, dy_t[z], C, V)
            pack_pairs(v_, dy_right[z], C, V)
            _load_sums(given.y, grads.y, lse, b, h, t, norm[own], delta[own])
        for j in range(0, S, C):
            more = False
            load_rows(given.k, b, g, j, k_, K, C)
            load_rows(given.v, b, g, j, v_, V, C)
            transpose_left(packed_pairs(k_, k_right, C, K), k_t, C, K)
            for at in range(R * blocks):
                t, own = at % blocks * C, slice(at * C, at * C + C)
                x, z = slice(at * C * K, at * C * K + C * K), slice(at * C * V, at * C * V + C * V)
                if not sizes.causal or t + past - j > -C:
                    product(k_, q_t[x], p, C, C, K, False)
                    product(v_, dy_t[z], dp, C, C, V, False)
                    _slopes(p, dp, C, norm[own], delta[own], sizes)
                    _hide(p, C, S - j, j - t - past, sizes.causal, 0)
                    _hide(dp, C, S - j, j - t - past, sizes.causal, 0)
                    weights, slopes = rounded(p, p_), rounded(dp, ds_)
                    product(weights, dy_right[z], dv, C, V, C, more)
                    product(slopes, q_right[x], dk, C, K, C, more)
                    product(k_t, packed_pairs(slopes, ds_right, C, C), dq_t[x], K, C, C, j > 0)
                    more = True
            store_rows(dk, K, grads.k, b, g, j)
            store_rows(dv, V, grads.v, b, g, j)
        for at in range(R * blocks):
            h, t, x = g * R + at // blocks, at % blocks * C, slice(at * C * K, at * C * K + C * K)
            transpose_left(packed_pairs(rounded(dq_t[x], k_t), k_right, K, C), k_, K, C)
            store_rows(k_, K, grads.q, b, h, t)
    leave(setup, kind)


@called
def _load_sums(y, dy, lse, b, h, t, norm, delta):  # type: ignore[no-untyped-def]
    """lse and δ of a block of queries; of those that are not there so that p is 0."""
    steps = min(len(norm), lse.shape[2] - t)
    norm[steps:], delta[steps:] = np.inf, 0
    for i in range(steps):
        at, d_at, total = offset(y, b, h, t + i), offset(dy, b, h, t + i), lse.dtype.type(0)
        row, drow = y.memory[at : at + y.width], dy.memory[d_at : d_at + y.width]
        for c in range(y.width):
            total += widened(row[c]) * widened(drow[c])
        norm[i], delta[i] = lse[b, h, t + i], total


@called
def _slopes(p, dp, C, norm, delta, sizes):  # type: ignore[no-untyped-def]
    """p in the place of scores, and ds in that of dp."""
    steep = sizes.scale * sizes.log2e
    for first in range(0, len(p), C):
        row, drow = p[first : first + C], dp[first : first + C]
        for i in range(C):
            weight = exp2(steep * row[i] - norm[i])
            row[i], drow[i] = weight, sizes.scale * weight * (drow[i] - delta[i])
