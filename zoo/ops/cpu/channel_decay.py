"""Chunked linear attention with a decay per channel, each head from its first step to its last in one loop.

About a step m in the middle of a chunk, with e_t the sum of log decays from m to t (negated before m),

    A_t = e^{e_t} ⊙ q_t,    B_s = e^{−e_s} ⊙ k_s,    S′ = diag(e^{b_m}) S

turn it into linear attention without a decay, o = A S′ + tril(A Bᵀ) V, and S ← diag(e^{e_C}) (S′ + Bᵀ V): products
in compiled loops, as in `tiled`. A and B stay finite while no e is beyond `LARGEST_EXPONENT`. A chunk with stronger
decays is the recurrence step by step, as in `compiled`. Spans are added up from m outwards, and never as differences of
longer ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import by_step, widened
from zoo.ops.cpu.jit import exp, inlined, loop
from zoo.ops.cpu.linear_attention import CHUNK
from zoo.ops.cpu.linear_attention_scan import step_back_after, update, update_then_read
from zoo.ops.cpu.matmul import (
    aligned_zeros,
    enter,
    leave,
    narrow,
    pack_pairs,
    padded,
    product,
    transpose_left,
    transpose_right,
)
from zoo.ops.cpu.matrices import dots, give, load_matrix, store_matrix, take, widen
from zoo.ops.cpu.threads import run

LARGEST_EXPONENT = 40.0
"""e^80, of both factors, is far from the largest float32, e^88; what they give where s > t is thrown away."""


class TiledChannelDecay(torch.autograd.Function):
    """o (B, H, T, V) in v's dtype, times `scale`, and the last S, from q, k and v in the dtype of products, a decay
    (B, H, T, K) and S (B, H, K, V).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        (B, H, T, V), K = v.shape, q.shape[-1]
        q, k, v, g = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v, g))
        S, before, o = S.contiguous(), v.new_empty(B, H, -(-T // CHUNK), K, V), v.new_empty(B, T, H, V)
        constants, last = S.new_tensor([scale, LARGEST_EXPONENT]), torch.empty_like(S)
        rows = by_step(q, k, v, g)
        arrays = [S, constants, before, o, last]
        run(_forward, B * H, CHUNK, padded(K), padded(V), *rows, *arrays)
        ctx.save_for_backward(q, k, v, g, before, constants)
        return o.transpose(1, 2), last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor, dS: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, before, constants = ctx.saved_tensors
        (B, H, T, V), K = v.shape, q.shape[-1]
        do, dS = do if do.stride(3) == 1 else do.contiguous(), dS.contiguous()
        dq, dk, dv, dg = (x.new_empty(B, T, H, x.shape[3]) for x in (q, k, v, g))
        first = torch.empty_like(dS)
        rows = by_step(q, k, v, g, do)
        arrays = [dS, constants, before, dq, dk, dv, dg, first]
        run(_backward, B * H, CHUNK, padded(K), padded(V), *rows, *arrays)
        return *(x.transpose(1, 2) for x in (dq, dk, dv, dg)), first, None


@inlined
def _spans(g, C, K, e, start, largest):  # type: ignore[no-untyped-def]
    """e (C, K) and b_m; whether all e stay within the largest exponent."""
    middle = C // 2
    e[middle * K : middle * K + K] = 0
    for t in range(middle + 1, C):
        log, before, now = g[t * K : t * K + K], e[t * K - K : t * K], e[t * K : t * K + K]
        for i in range(K):
            now[i] = before[i] + log[i]
    for back in range(middle):
        t = middle - 1 - back
        log, after, now = g[t * K + K : t * K + 2 * K], e[t * K + K : t * K + 2 * K], e[t * K : t * K + K]
        for i in range(K):
            now[i] = after[i] - log[i]
    first, last, mild = e[:K], e[C * K - K : C * K], True
    for i in range(K):
        start[i] = g[i] - first[i]
        mild &= first[i] <= largest and last[i] >= -largest
    return mild


@inlined
def _grown(x, e, sign, K, C, factors, line, to):  # type: ignore[no-untyped-def]
    """x ⊙ e^{± e}, and those factors."""
    for i in range(C * K):
        factors[i] = exp(sign * e[i])
    for i in range(C * K):
        line[i] = widened(x[i]) * factors[i]
    narrow(line, to)


@inlined
def _decay_rows(S, logs, K, V):  # type: ignore[no-untyped-def]
    for i in range(K):
        row, factor = S[i * V : i * V + V], exp(logs[i])
        for c in range(V):
            row[c] *= factor


@inlined
def _lower(x, C):  # type: ignore[no-untyped-def]
    for t in range(C):
        x[t * C + t + 1 : t * C + C] = 0


@inlined
def _upper(x, C):  # type: ignore[no-untyped-def]
    for t in range(C):
        x[t * C : t * C + t] = 0


@loop
def _forward(  # type: ignore[no-untyped-def]
    start, stop, C, K, V,
    q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t, g, g_b, g_h, g_t,
    S, constants, before, o, last,
):  # fmt: skip
    """Work items are heads of rows. K and V are padded."""
    _, T, H, width = o.shape
    N, depth = before.shape[2:4]
    scale, largest = constants[0], constants[1]
    one = scale / scale
    Q, keys, values = aligned_zeros(C * K, before), aligned_zeros(C * K, before), aligned_zeros(C * V, before)
    A, B, turned, packed_pairs = (
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * V, before),
    )
    state, state_right, pairs = aligned_zeros(K * V, before), aligned_zeros(K * V, before), aligned_zeros(C * C, before)
    S_, out, scores = aligned_zeros(K * V, S), aligned_zeros(C * V, S), aligned_zeros(C * C, S)
    logs, e, factors, line = (
        aligned_zeros(C * K, S),
        aligned_zeros(C * K, S),
        aligned_zeros(C * K, S),
        aligned_zeros(C * K, S),
    )
    b_m, value = aligned_zeros(K, S), aligned_zeros(V, S)
    setup = enter(before)
    for item in range(start, stop):
        b, h = item // H, item % H
        load_matrix(S[b, h], width, S_, V)
        for n in range(N):
            first = n * C
            steps = min(C, T - first)
            take(q, b * q_b + h * q_h + first * q_t, q_t, steps, depth, C, Q, K, C)
            take(k, b * k_b + h * k_h + first * k_t, k_t, steps, depth, C, keys, K, C)
            take(v, b * v_b + h * v_h + first * v_t, v_t, steps, width, C, values, V, C)
            take(g, b * g_b + h * g_h + first * g_t, g_t, steps, depth, C, logs, K, C)
            mild = _spans(logs, C, K, e, b_m, largest)
            if mild:
                _decay_rows(S_, b_m, K, V)
            narrow(S_, state)
            store_matrix(state, width, V, before[b, h, n])
            if mild:
                _grown(Q, e, one, K, C, factors, line, A)
                _grown(keys, e, -one, K, C, factors, line, B)
                transpose_right(B, turned, C, K)
                product(A, turned, scores, C, C, K, False)
                _lower(scores, C)
                narrow(scores, pairs)
                pack_pairs(state, state_right, K, V)
                product(A, state_right, out, C, V, K, False)
                pack_pairs(values, packed_pairs, C, V)
                product(pairs, packed_pairs, out, C, V, C, True)
                pack_pairs(B, A, C, K)
                transpose_left(A, turned, C, K)
                product(turned, packed_pairs, S_, K, V, C, True)
                _decay_rows(S_, e[C * K - K : C * K], K, V)
            else:
                out[:] = 0
                for i in range(C * K):
                    factors[i] = exp(logs[i])
                for t in range(steps):
                    widen(values[t * V : t * V + V], value)
                    row = out[t * V : t * V + V]
                    for i in range(depth):
                        at = t * K + i
                        update_then_read(
                            S_[i * V : i * V + V], factors[at], widened(Q[at]), widened(keys[at]), value, row
                        )
            give(out, steps, width, V, scale, o, b, first, h)
        store_matrix(S_, width, V, last[b, h])
    leave(setup, before)


@loop
def _backward(  # type: ignore[no-untyped-def]
    start, stop, C, K, V,
    q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t, g, g_b, g_h, g_t, do, do_b, do_h, do_t,
    dS, constants, before, dq, dk, dv, dg, dS_out,
):  # fmt: skip
    _, T, H, width = dv.shape
    N, depth = before.shape[2:4]
    scale, largest = constants[0], constants[1]
    one, middle = scale / scale, C // 2
    Q, keys, A, B = (
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
    )
    A_, B_, turned = aligned_zeros(C * K, before), aligned_zeros(C * K, before), aligned_zeros(C * K, before)
    values, given = aligned_zeros(C * V, before), aligned_zeros(C * V, before)
    slopes, slopes_, turned_v = aligned_zeros(C * V, before), aligned_zeros(C * V, before), aligned_zeros(C * V, before)
    state, after, after_ = aligned_zeros(K * V, before), aligned_zeros(K * V, before), aligned_zeros(K * V, before)
    pairs, dpairs, dpairs_ = aligned_zeros(C * C, before), aligned_zeros(C * C, before), aligned_zeros(C * C, before)
    scores, by_value, G = aligned_zeros(C * C, dS), aligned_zeros(C * V, dS), aligned_zeros(K * V, dS)
    logs, e, read, wrote = (
        aligned_zeros(C * K, dS),
        aligned_zeros(C * K, dS),
        aligned_zeros(C * K, dS),
        aligned_zeros(C * K, dS),
    )
    grown, shrunk, line = aligned_zeros(C * K, dS), aligned_zeros(C * K, dS), aligned_zeros(C * K, dS)
    b_m, begun, ended, value, slope = (
        aligned_zeros(K, dS),
        aligned_zeros(K, dS),
        aligned_zeros(K, dS),
        aligned_zeros(V, dS),
        aligned_zeros(V, dS),
    )
    setup = enter(before)
    for item in range(start, stop):
        b, h = item // H, item % H
        load_matrix(dS[b, h], width, G, V)
        for back in range(N):
            n = N - 1 - back
            first = n * C
            steps = min(C, T - first)
            take(q, b * q_b + h * q_h + first * q_t, q_t, steps, depth, C, Q, K, -C)
            take(k, b * k_b + h * k_h + first * k_t, k_t, steps, depth, C, keys, K, -C)
            take(v, b * v_b + h * v_h + first * v_t, v_t, steps, width, C, values, V, -C)
            take(g, b * g_b + h * g_h + first * g_t, g_t, steps, depth, C, logs, K, -C)
            take(do, b * do_b + h * do_h + first * do_t, do_t, steps, width, C, given, V, -C)
            for i in range(C * V):
                by_value[i] = scale * widened(given[i])
            narrow(by_value, slopes)
            load_matrix(before[b, h, n], width, state, V)
            if _spans(logs, C, K, e, b_m, largest):
                _grown(Q, e, one, K, C, grown, line, A)
                _grown(keys, e, -one, K, C, shrunk, line, B)
                _decay_rows(G, e[C * K - K : C * K], K, V)
                narrow(G, after)
                ended[:] = 0
                dots(state, G, K, V, ended)
                transpose_right(A, turned, C, K)
                product(B, turned, scores, C, C, K, False)
                _upper(scores, C)
                narrow(scores, pairs)
                transpose_right(slopes, turned_v, C, V)
                product(values, turned_v, scores, C, C, V, False)
                _upper(scores, C)
                narrow(scores, dpairs)
                pack_pairs(after, after_, K, V)
                product(B, after_, by_value, C, V, K, False)
                pack_pairs(slopes, slopes_, C, V)
                product(pairs, slopes_, by_value, C, V, C, True)
                give(by_value, steps, width, V, one, dv, b, first, h)
                transpose_right(after, after_, K, V)
                product(values, after_, wrote, C, K, V, False)
                for s in range(C):
                    key, row = B[s * K : s * K + K], wrote[s * K : s * K + K]
                    for i in range(K):
                        ended[i] += widened(key[i]) * row[i]
                pack_pairs(A, A_, C, K)
                product(dpairs, A_, wrote, C, K, C, True)
                transpose_right(state, after_, K, V)
                product(slopes, after_, read, C, K, V, False)
                pack_pairs(dpairs, dpairs_, C, C)
                transpose_left(dpairs_, dpairs, C, C)
                pack_pairs(B, B_, C, K)
                product(dpairs, B_, read, C, K, C, True)
                transpose_left(A_, turned, C, K)
                product(turned, slopes_, G, K, V, C, True)
                begun[:] = 0
                dots(state, G, K, V, begun)
                for i in range(C * K):
                    line[i] = widened(A[i]) * read[i] - widened(B[i]) * wrote[i]  # of e
                for i in range(C * K):
                    read[i] *= grown[i]
                for i in range(C * K):
                    wrote[i] *= shrunk[i]
                # A log decay behind m is in every later e, one up to m in every earlier one, negated.
                for i in range(C - 1 - middle):
                    t = C - 1 - i
                    of, to = line[t * K : t * K + K], logs[t * K : t * K + K]
                    for c in range(K):
                        ended[c] += of[c]
                        to[c] = ended[c]
                for t in range(middle + 1):
                    of, to = line[t * K : t * K + K], logs[t * K : t * K + K]
                    for c in range(K):
                        to[c] = begun[c]
                        begun[c] -= of[c]
                _decay_rows(G, b_m, K, V)
            else:
                Ss = np.empty((C + 1, K * V), dS.dtype)
                widen(state, Ss[0])
                for i in range(C * K):
                    grown[i] = exp(logs[i])
                for t in range(steps):
                    widen(values[t * V : t * V + V], value)
                    for i in range(K):
                        at = t * K + i
                        update(
                            Ss[t, i * V : i * V + V], grown[at], widened(keys[at]), value, Ss[t + 1, i * V : i * V + V]
                        )
                for i in range(steps):
                    t = steps - 1 - i
                    widen(values[t * V : t * V + V], value)
                    widen(slopes[t * V : t * V + V], slope)
                    row = by_value[t * V : t * V + V]
                    row[:] = 0
                    for c in range(K):
                        at, one_row = t * K + c, slice(c * V, c * V + V)
                        read[at], wrote[at], logs[at] = step_back_after(
                            G[one_row], Ss[t][one_row], Ss[t + 1][one_row],
                            grown[at], widened(Q[at]), widened(keys[at]), value, slope, row,
                        )  # fmt: skip
                give(by_value, steps, width, V, one, dv, b, first, h)
            give(read, steps, depth, K, one, dq, b, first, h)
            give(wrote, steps, depth, K, one, dk, b, first, h)
            give(logs, steps, depth, K, one, dg, b, first, h)
        store_matrix(G, width, V, dS_out[b, h])
    leave(setup, before)
