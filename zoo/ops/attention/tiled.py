"""Plain softmax attention in loops on matrix tiles, forward and back (Dao 2023, arXiv:2307.08691, algorithms 1 and 2).

For a block of queries and one of keys, all transposed so that keys are rows and no row has to be summed:

    sᵀ = scale k qᵀ,    m ← max(m, max s),    pᵀ = e^{sᵀ − m},    l ← e^{m' − m} l + Σ p,    oᵀ ← e^{m' − m} oᵀ + vᵀ pᵀ

with m' the m before; at the end y = o / l and lse = m + ln l. Backward, with blocks of keys outside,

    pᵀ = e^{sᵀ − lse},    dpᵀ = v dyᵀ,    dsᵀ = scale pᵀ (dpᵀ − δ),    δ = Σ dy y
    dv += pᵀ dy,    dk += dsᵀ q,    dqᵀ += kᵀ dsᵀ

Scores, p and ds exist for one pair of blocks at a time, in the caches and in float32; products (`zoo.ops.tiles`) read
them rounded, and sum in float32. Threads take heads of keys.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import compiled
from zoo.ops.bfloat16 import memory, widened
from zoo.ops.loops import exp2, inlined, loop
from zoo.ops.matrices import give, take
from zoo.ops.precision import widest
from zoo.ops.threads import run
from zoo.ops.tiles import enter, leave, narrow, padded, product, room, turn, turn_back, weave

QUERIES = KEYS = 128
"""Of a block."""


def serves(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether there are tiles, and blocks would not be half empty."""
    return compiled.multiplies(q, k, v) and 2 * min(q.shape[2], k.shape[1]) > QUERIES


def attend(
    q: Float[Tensor, "N R T K"], k: Float[Tensor, "N S K"], v: Float[Tensor, "N S V"], causal: bool, scale: float
) -> tuple[Float[Tensor, "N R T V"], Float[Tensor, "N R T"]]:
    """y in the dtype of products, which q, k and v have, and lse, of R query heads to a head of keys."""
    (N, R, T, K), V = q.shape, v.shape[2]
    y, lse = q.new_empty(N * R, T, 1, V), torch.empty(N, R, T, dtype=widest(q))
    factors = lse.new_tensor([scale, scale / math.log(2), torch.finfo(lse.dtype).min / 4])
    rows = [memory(x.contiguous()) for x in (q, k, v)]
    run(_attend, N, R, padded(K), padded(V), causal, k.shape[1], K, *rows, factors, y, lse)
    return y.view(N, R, T, V), lse


def gradients(
    q: Float[Tensor, "N R T K"],
    k: Float[Tensor, "N S K"],
    v: Float[Tensor, "N S V"],
    y: Float[Tensor, "N R T V"],
    lse: Float[Tensor, "N R T"],
    dy: Float[Tensor, "N R T V"],
    causal: bool,
    scale: float,
) -> tuple[Float[Tensor, "N R T K"], Float[Tensor, "N S K"], Float[Tensor, "N S V"]]:
    """Gradients by q, k and v, in the dtype of products, which all but `lse` have; where causal, T = S."""
    (N, R, T, K), (_, S, V) = q.shape, v.shape
    dq, dk, dv = (x.new_empty(n, steps, 1, d) for x, n, steps, d in ((q, N * R, T, K), (k, N, S, K), (v, N, S, V)))
    factors = lse.new_tensor([scale, scale / math.log(2), 1 / math.log(2)])
    rows = [memory(x.contiguous()) for x in (q, k, v, y, dy)]
    run(_gradients, N, R, padded(K), padded(V), causal, *rows, lse.contiguous(), factors, dq, dk, dv)
    return dq.view(q.shape), dk.view(k.shape), dv.view(v.shape)


@loop
def _attend(start, stop, R, K, V, causal, S, depth, q, k, v, factors, y, lse):  # type: ignore[no-untyped-def]
    """K and V are padded."""
    T, width, blocks, ahead = lse.shape[2], y.shape[3], -(-lse.shape[2] // QUERIES), -(-S // KEYS)
    scale, steep, lowest = factors[0], factors[1], factors[2]
    one = scale / scale
    # Of all keys of a head, block by block; then of a block of queries, and of a pair of blocks.
    k_, v_turned = room(ahead * KEYS * K, q), room(ahead * V * KEYS, q)
    wide, right, narrow_ = room(KEYS * max(K, V), q), room(KEYS * max(K, V), q), room(KEYS * max(K, V), q)
    q_turned, o, top, before, total = (
        room(K * QUERIES, q), room(V * QUERIES, lse), room(QUERIES, lse), room(QUERIES, lse), room(QUERIES, lse),
    )  # fmt: skip
    p, p_, p_right = room(KEYS * QUERIES, lse), room(KEYS * QUERIES, q), room(KEYS * QUERIES, q)
    setup = enter(q)
    for n in range(start, stop):
        for b in range(ahead):
            j, x, z = b * KEYS, b * KEYS * K, b * V * KEYS
            steps = min(KEYS, S - j)
            take(k, (n * S + j) * depth, depth, steps, depth, KEYS, k_[x : x + KEYS * K], K)
            take(v, (n * S + j) * width, width, steps, width, KEYS, wide[: KEYS * V], V)
            weave(wide[: KEYS * V], right[: KEYS * V], KEYS, V)
            turn_back(right[: KEYS * V], v_turned[z : z + V * KEYS], KEYS, V)
        for at in range(R * blocks):
            r, t = at // blocks, at % blocks * QUERIES
            steps = min(QUERIES, T - t)
            take(q, ((n * R + r) * T + t) * depth, depth, steps, depth, QUERIES, wide[: QUERIES * K], K)
            turn(wide[: QUERIES * K], q_turned, QUERIES, K)
            top[:], total[:] = lowest, 0
            for b in range(min(ahead, t // KEYS + 1) if causal else ahead):
                j, x, z = b * KEYS, b * KEYS * K, b * V * KEYS
                product(k_[x : x + KEYS * K], q_turned, p, KEYS, QUERIES, K, False)
                before[:] = top
                for key in range(KEYS):
                    row = p[key * QUERIES : key * QUERIES + QUERIES]
                    blind = QUERIES if key >= S - j else key - t + j if causal else 0
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
                narrow(p, p_)
                weave(p_, p_right, KEYS, QUERIES)
                if b > 0:
                    for f in range(V):
                        row = o[f * QUERIES : f * QUERIES + QUERIES]
                        for i in range(QUERIES):
                            row[i] *= before[i]
                product(v_turned[z : z + V * KEYS], p_right, o, V, QUERIES, KEYS, b > 0)
            for i in range(steps):
                lse[n, r, t + i] = top[i] * scale / steep + np.log(total[i])
            for i in range(QUERIES):
                total[i] = one / total[i]
            for f in range(V):
                row = o[f * QUERIES : f * QUERIES + QUERIES]
                for i in range(QUERIES):
                    row[i] *= total[i]
            narrow(o, wide[: V * QUERIES])
            weave(wide[: V * QUERIES], right[: V * QUERIES], V, QUERIES)
            turn_back(right[: V * QUERIES], narrow_[: V * QUERIES], V, QUERIES)
            give(narrow_, steps, width, V, one, y, n * R + r, t, 0)
    leave(setup, q)


@loop
def _gradients(start, stop, R, K, V, causal, q, k, v, y, dy, lse, factors, dq, dk, dv):  # type: ignore[no-untyped-def]
    """K and V are padded."""
    T, S, depth, width = lse.shape[2], dk.shape[1], dk.shape[3], dv.shape[3]
    scale, steep, log2e = factors[0], factors[1], factors[2]
    one, blocks = scale / scale, -(-T // QUERIES)
    # Of all queries to a head of keys, block by block.
    q_right, q_turned = room(R * blocks * QUERIES * K, q), room(R * blocks * QUERIES * K, q)
    dy_right, dy_turned = room(R * blocks * QUERIES * V, q), room(R * blocks * QUERIES * V, q)
    norm, delta = room(R * blocks * QUERIES, lse), room(R * blocks * QUERIES, lse)
    dq_turned = room(R * blocks * K * QUERIES, lse)
    # Of a block of keys, and of a pair of blocks.
    k_, k_right, k_turned, v_ = room(KEYS * K, q), room(KEYS * K, q), room(K * KEYS, q), room(KEYS * V, q)
    dk_, dv_ = room(KEYS * K, lse), room(KEYS * V, lse)
    p, dp, p_, ds_ = (
        room(KEYS * QUERIES, lse),
        room(KEYS * QUERIES, lse),
        room(KEYS * QUERIES, q),
        room(KEYS * QUERIES, q),
    )
    ds_right = room(KEYS * QUERIES, q)
    setup = enter(q)
    for n in range(start, stop):
        for at in range(R * blocks):
            r, t = at // blocks, at % blocks * QUERIES
            steps, row, x, z = min(QUERIES, T - t), (n * R + r) * T + t, at * QUERIES * K, at * QUERIES * V
            take(q, row * depth, depth, steps, depth, QUERIES, k_, K)
            turn(k_, q_turned[x : x + QUERIES * K], QUERIES, K)
            weave(k_, q_right[x : x + QUERIES * K], QUERIES, K)
            take(dy, row * width, width, steps, width, QUERIES, v_, V)
            turn(v_, dy_turned[z : z + QUERIES * V], QUERIES, V)
            weave(v_, dy_right[z : z + QUERIES * V], QUERIES, V)
            for i in range(steps):
                norm[at * QUERIES + i] = log2e * lse[n, r, t + i]
                of = slice((row + i) * width, (row + i + 1) * width)
                delta[at * QUERIES + i] = _dot(dy[of], y[of], scale - scale)
            for i in range(steps, QUERIES):
                norm[at * QUERIES + i], delta[at * QUERIES + i] = np.inf, 0
        for j in range(0, S, KEYS):
            steps, fresh = min(KEYS, S - j), True
            take(k, (n * S + j) * depth, depth, steps, depth, KEYS, k_, K)
            take(v, (n * S + j) * width, width, steps, width, KEYS, v_, V)
            weave(k_, k_right, KEYS, K)
            turn_back(k_right, k_turned, KEYS, K)
            for at in range(R * blocks):
                ahead, x, z = at % blocks * QUERIES - j, at * QUERIES * K, at * QUERIES * V
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
                    narrow(p, p_)
                    narrow(dp, ds_)
                    weave(ds_, ds_right, KEYS, QUERIES)
                    product(p_, dy_right[z : z + QUERIES * V], dv_, KEYS, V, QUERIES, not fresh)
                    product(ds_, q_right[x : x + QUERIES * K], dk_, KEYS, K, QUERIES, not fresh)
                    product(k_turned, ds_right, dq_turned[x : x + QUERIES * K], K, QUERIES, KEYS, j > 0)
                    fresh = False
            give(dk_, steps, depth, K, one, dk, n, j, 0)
            give(dv_, steps, width, V, one, dv, n, j, 0)
        for at in range(R * blocks):
            r, t, x = at // blocks, at % blocks * QUERIES, at * QUERIES * K
            narrow(dq_turned[x : x + QUERIES * K], k_turned)
            weave(k_turned, k_right, K, QUERIES)
            turn_back(k_right, k_, K, QUERIES)
            give(k_, min(QUERIES, T - t), depth, K, one, dq, n * R + r, t, 0)
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
