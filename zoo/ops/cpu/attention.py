"""Plain softmax attention in loops that multiply, forward and back (Dao 2023, arXiv:2307.08691, algorithms 1 and 2).

For a block of queries and one of keys, all transposed so that keys are rows and no row has to be summed:

    sᵀ = scale k qᵀ,    m ← max(m, max s),    pᵀ = e^{sᵀ − m},    l ← e^{m' − m} l + Σ p,    oᵀ ← e^{m' − m} oᵀ + vᵀ pᵀ

with m' the m before; at the end y = o / l and lse = m + ln l. Backward, with blocks of keys outside,

    pᵀ = e^{sᵀ − lse},    dpᵀ = v dyᵀ,    dsᵀ = scale pᵀ (dpᵀ − δ),    δ = Σ dy y
    dv += pᵀ dy,    dk += dsᵀ q,    dqᵀ += kᵀ dsᵀ

Scores, p and ds exist for one pair of blocks at a time, in the caches and in float32. Products, see
`zoo.ops.cpu.matmul`, read them rounded and sum in float32. Threads take heads of keys.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from zoo.ops import forms
from zoo.ops.cpu.bfloat16 import by_step, widened
from zoo.ops.cpu.jit import exp2, inlined, loop
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
from zoo.ops.cpu.matrices import put, take
from zoo.ops.cpu.threads import run
from zoo.ops.precision import promote

LEAST = 64
"""Queries and keys, of which there are more."""


def side(kind: Any) -> int:
    """Queries and keys of a block: products on tiles are worth larger ones, half of which is blind at the diagonal."""
    raise NotImplementedError("for loops only")


@overload(side)
def _side(kind: Any) -> Any:
    return _long if kind.dtype == types.uint16 else _short


def _long(kind: Any) -> int:
    return 128


def _short(kind: Any) -> int:
    return 64


def serves(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> bool:
    """Whether compiled loops multiply these fast, every query sees a key, and blocks would not be half empty."""
    (T, S), same = (q.shape[2], k.shape[2]), q.dtype is k.dtype is v.dtype
    return same and forms.has_matmul_kernel(q.dtype, q, k, v) and (S >= T or not causal) and min(T, S) > LEAST


class TiledAttention(torch.autograd.Function):
    """`naive.attend` of plain scores: y (B, H, T, V), which lies in memory as (B, T, H, V), from q (B, H, T, K), k
    (B, G, S, K) and v (B, G, S, V), all in the dtype of products; where causal, the last query sees all keys.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
        (B, H, T, K), (_, G, S, V) = q.shape, v.shape
        ctx.options = causal, scale
        q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
        y, lse = q.new_empty(B, T, H, V).transpose(1, 2), torch.empty(B, H, T, dtype=promote(q))
        factors = lse.new_tensor([scale, scale / math.log(2), torch.finfo(lse.dtype).min / 4])
        run(_attend, B * G, padded(K), padded(V), causal, K, V, G, S, *by_step(q, k, v, y), factors, lse)
        ctx.save_for_backward(q, k, v, y, lse)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, lse = ctx.saved_tensors
        (B, *_, K), (_, G, S, V) = q.shape, v.shape
        causal, scale = ctx.options
        dy = dy if dy.stride(3) == 1 else dy.contiguous()
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        factors = lse.new_tensor([scale, scale / math.log(2), 1 / math.log(2)])
        steps = by_step(q, k, v, y, dy, dq, dk, dv)
        run(_gradients, B * G, padded(K), padded(V), causal, K, V, G, S, *steps, lse, factors)
        return dq, dk, dv, None, None


@loop
def _attend(  # type: ignore[no-untyped-def]
    start, stop, K, V, causal, depth, width, G, S, q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t,
    y, y_b, y_h, y_t, factors, lse,
):  # fmt: skip
    """K and V are padded; `depth` and `width` are not."""
    _, H, T = lse.shape
    QUERIES = KEYS = side(q)
    R, blocks, ahead = H // G, -(-T // QUERIES), -(-S // KEYS)
    past = S - T if causal else 0
    scale, steep, lowest = factors[0], factors[1], factors[2]
    one = scale / scale
    # Of all keys of a head, block by block; then of a block of queries, and of a pair of blocks.
    k_, v_turned = aligned_zeros(ahead * KEYS * K, q), aligned_zeros(ahead * V * KEYS, q)
    wide, right, narrow_ = (
        aligned_zeros(KEYS * max(K, V), q),
        aligned_zeros(KEYS * max(K, V), q),
        aligned_zeros(KEYS * max(K, V), q),
    )
    q_turned, o, top, before, total = (
        aligned_zeros(K * QUERIES, q), aligned_zeros(V * QUERIES, lse), aligned_zeros(QUERIES, lse), aligned_zeros(QUERIES, lse), aligned_zeros(QUERIES, lse),
    )  # fmt: skip
    p, p_, p_right = (
        aligned_zeros(KEYS * QUERIES, lse),
        aligned_zeros(KEYS * QUERIES, q),
        aligned_zeros(KEYS * QUERIES, q),
    )
    setup = enter(q)
    for item in range(start, stop):
        b, g = item // G, item % G
        for block in range(ahead):
            j, x, z = block * KEYS, block * KEYS * K, block * V * KEYS
            steps = min(KEYS, S - j)
            take(k, b * k_b + g * k_h + j * k_t, k_t, steps, depth, KEYS, k_[x : x + KEYS * K], K, KEYS)
            take(v, b * v_b + g * v_h + j * v_t, v_t, steps, width, KEYS, wide[: KEYS * V], V, KEYS)
            transpose_left(
                packed_pairs(wide[: KEYS * V], right[: KEYS * V], KEYS, V), v_turned[z : z + V * KEYS], KEYS, V
            )
        for at in range(R * blocks):
            h, t = g * R + at // blocks, at % blocks * QUERIES
            steps = min(QUERIES, T - t)
            take(q, b * q_b + h * q_h + t * q_t, q_t, steps, depth, QUERIES, wide[: QUERIES * K], K, QUERIES)
            transpose_right(wide[: QUERIES * K], q_turned, QUERIES, K)
            top[:], total[:] = lowest, 0
            for block in range(min(ahead, (t + QUERIES - 1 + past) // KEYS + 1) if causal else ahead):
                j, x, z = block * KEYS, block * KEYS * K, block * V * KEYS
                product(k_[x : x + KEYS * K], q_turned, p, KEYS, QUERIES, K, False)
                before[:] = top
                for key in range(KEYS):
                    row = p[key * QUERIES : key * QUERIES + QUERIES]
                    blind = QUERIES if key >= S - j else key + j - t - past if causal else 0
                    for i in range(min(blind, QUERIES)):
                        row[i] = lowest
                    for i in range(QUERIES):
                        row[i] *= steep
                        top[i] = max(top[i], row[i])
                for i in range(QUERIES):
                    before[i] = exp2(before[i] - top[i])
                    total[i] *= before[i]
                for key in range(KEYS):
                    row = p[key * QUERIES : key * QUERIES + QUERIES]
                    for i in range(QUERIES):
                        row[i] = exp2(row[i] - top[i])
                        total[i] += row[i]
                if block > 0:
                    for f in range(V):
                        row = o[f * QUERIES : f * QUERIES + QUERIES]
                        for i in range(QUERIES):
                            row[i] *= before[i]
                weights = packed_pairs(rounded(p, p_), p_right, KEYS, QUERIES)
                product(v_turned[z : z + V * KEYS], weights, o, V, QUERIES, KEYS, block > 0)
            for i in range(steps):
                lse[b, h, t + i] = top[i] * scale / steep + np.log(total[i])
            for i in range(QUERIES):
                total[i] = one / total[i]
            for f in range(V):
                row = o[f * QUERIES : f * QUERIES + QUERIES]
                for i in range(QUERIES):
                    row[i] *= total[i]
            means = packed_pairs(rounded(o, wide[: V * QUERIES]), right[: V * QUERIES], V, QUERIES)
            transpose_left(means, narrow_[: V * QUERIES], V, QUERIES)
            put(narrow_, steps, width, V, y, b * y_b + h * y_h + t * y_t, y_t)
    leave(setup, q)


@loop
def _gradients(  # type: ignore[no-untyped-def]
    start, stop, K, V, causal, depth, width, G, S, q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t,
    y, y_b, y_h, y_t, dy, dy_b, dy_h, dy_t, dq, dq_b, dq_h, dq_t, dk, dk_b, dk_h, dk_t, dv, dv_b, dv_h, dv_t,
    lse, factors,
):  # fmt: skip
    """K and V are padded; `depth` and `width` are not."""
    _, H, T = lse.shape
    QUERIES = KEYS = side(q)
    R, blocks = H // G, -(-T // QUERIES)
    scale, steep, log2e = factors[0], factors[1], factors[2]
    past = S - T if causal else 0
    # Of all queries to a head of keys, block by block.
    q_right, q_turned = aligned_zeros(R * blocks * QUERIES * K, q), aligned_zeros(R * blocks * QUERIES * K, q)
    dy_right, dy_turned = aligned_zeros(R * blocks * QUERIES * V, q), aligned_zeros(R * blocks * QUERIES * V, q)
    norm, delta = aligned_zeros(R * blocks * QUERIES, lse), aligned_zeros(R * blocks * QUERIES, lse)
    dq_turned = aligned_zeros(R * blocks * K * QUERIES, lse)
    # Of a block of keys, and of a pair of blocks.
    k_, k_right, k_turned, v_ = (
        aligned_zeros(KEYS * K, q),
        aligned_zeros(KEYS * K, q),
        aligned_zeros(K * KEYS, q),
        aligned_zeros(KEYS * V, q),
    )
    dk_, dv_ = aligned_zeros(KEYS * K, lse), aligned_zeros(KEYS * V, lse)
    p, dp, p_, ds_ = (
        aligned_zeros(KEYS * QUERIES, lse),
        aligned_zeros(KEYS * QUERIES, lse),
        aligned_zeros(KEYS * QUERIES, q),
        aligned_zeros(KEYS * QUERIES, q),
    )
    ds_right = aligned_zeros(KEYS * QUERIES, q)
    setup = enter(q)
    for item in range(start, stop):
        b, g = item // G, item % G
        for at in range(R * blocks):
            h, t = g * R + at // blocks, at % blocks * QUERIES
            steps, x, z = min(QUERIES, T - t), at * QUERIES * K, at * QUERIES * V
            result, change = b * y_b + h * y_h + t * y_t, b * dy_b + h * dy_h + t * dy_t
            take(q, b * q_b + h * q_h + t * q_t, q_t, steps, depth, QUERIES, k_, K, QUERIES)
            transpose_right(k_, q_turned[x : x + QUERIES * K], QUERIES, K)
            pack_pairs(k_, q_right[x : x + QUERIES * K], QUERIES, K)
            take(dy, change, dy_t, steps, width, QUERIES, v_, V, QUERIES)
            transpose_right(v_, dy_turned[z : z + QUERIES * V], QUERIES, V)
            pack_pairs(v_, dy_right[z : z + QUERIES * V], QUERIES, V)
            for i in range(steps):
                norm[at * QUERIES + i] = log2e * lse[b, h, t + i]
                row, drow = result + i * y_t, change + i * dy_t
                delta[at * QUERIES + i] = _dot(y[row : row + width], dy[drow : drow + width], scale - scale)
            for i in range(steps, QUERIES):
                norm[at * QUERIES + i], delta[at * QUERIES + i] = np.inf, 0
        for j in range(0, S, KEYS):
            steps, fresh = min(KEYS, S - j), True
            take(k, b * k_b + g * k_h + j * k_t, k_t, steps, depth, KEYS, k_, K, KEYS)
            take(v, b * v_b + g * v_h + j * v_t, v_t, steps, width, KEYS, v_, V, KEYS)
            transpose_left(packed_pairs(k_, k_right, KEYS, K), k_turned, KEYS, K)
            for at in range(R * blocks):
                ahead, x, z = at % blocks * QUERIES + past - j, at * QUERIES * K, at * QUERIES * V
                if not causal or ahead > -QUERIES:
                    product(k_, q_turned[x : x + QUERIES * K], p, KEYS, QUERIES, K, False)
                    product(v_, dy_turned[z : z + QUERIES * V], dp, KEYS, QUERIES, V, False)
                    for key in range(KEYS):
                        blind = QUERIES if key >= steps else key - ahead if causal else 0
                        of, to = (
                            slice(key * QUERIES, key * QUERIES + QUERIES),
                            slice(at * QUERIES, at * QUERIES + QUERIES),
                        )
                        _slopes(p[of], dp[of], norm[to], delta[to], steep, scale, min(blind, QUERIES))
                    weights, slopes = rounded(p, p_), rounded(dp, ds_)
                    product(weights, dy_right[z : z + QUERIES * V], dv_, KEYS, V, QUERIES, not fresh)
                    product(slopes, q_right[x : x + QUERIES * K], dk_, KEYS, K, QUERIES, not fresh)
                    across = packed_pairs(slopes, ds_right, KEYS, QUERIES)
                    product(k_turned, across, dq_turned[x : x + QUERIES * K], K, QUERIES, KEYS, j > 0)
                    fresh = False
            put(dk_, steps, depth, K, dk, b * dk_b + g * dk_h + j * dk_t, dk_t)
            put(dv_, steps, width, V, dv, b * dv_b + g * dv_h + j * dv_t, dv_t)
        for at in range(R * blocks):
            h, t, x = g * R + at // blocks, at % blocks * QUERIES, at * QUERIES * K
            turned = packed_pairs(rounded(dq_turned[x : x + QUERIES * K], k_turned), k_right, K, QUERIES)
            transpose_left(turned, k_, K, QUERIES)
            put(k_, min(QUERIES, T - t), depth, K, dq, b * dq_b + h * dq_h + t * dq_t, dq_t)
    leave(setup, q)


@inlined
def _slopes(p, dp, norm, delta, steep, scale, blind):  # type: ignore[no-untyped-def]
    """p, and ds in the place of dp, of a key, of which the first `blind` queries see nothing."""
    for i in range(len(p)):
        weight = exp2(steep * p[i] - norm[i])
        p[i], dp[i] = weight, scale * weight * (dp[i] - delta[i])
    for i in range(blind):
        p[i], dp[i] = 0, 0


@inlined
def _dot(x, y, zero):  # type: ignore[no-untyped-def]
    total = zero
    for i in range(len(x)):
        total += widened(x[i]) * widened(y[i])
    return total
