"""Chunked linear attention with a decay per head or none, each head from its first step to its last in one loop.

Within a chunk, with D_t = e^{b_t}, E_s = e^{b_C − b_s}, Γ_ts = e^{b_t − b_s} for s ≤ t and S the state before it (see
`chunked`),

    P = (Q Kᵀ) ⊙ Γ,    O = D Q S + P V,    S ← e^{b_C} S + Kᵀ E V

and backward, with G the gradient of the state behind it,

    dP = (dO Vᵀ) ⊙ Γ,    dQ = D dO Sᵀ + dP K,    dK = E V Gᵀ + dPᵀ Q,    dV = E K G + Pᵀ dO,    G ← e^{b_C} G + Qᵀ D dO.

A mean divides by the same sums of ones instead of values, o_t = O_t / (d_t + ε): another column of V, which stands
apart as z beside S. Products are those of `zoo.ops.cpu.matmul`; what is between them stays in the cache, and only
inputs, outputs and the states before chunks pass through memory. b_t gains what is read at t and loses what is written
there; what both share cancels in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import by_step, narrowed, widened
from zoo.ops.cpu.jit import exp, inlined, loop
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
from zoo.ops.cpu.matrices import (
    add_rows,
    dots,
    give,
    load_matrix,
    scale_into,
    scale_rows,
    store_matrix,
    take,
)
from zoo.ops.cpu.threads import run
from zoo.ops.linear_attention.chunked import LOWEST

CHUNK = 64


class TiledLinearAttention(torch.autograd.Function):
    """o (B, H, T, V) in v's dtype and the last S and z, from q and k (B, H, T, K), v, a decay (B, H, T) or None, S and
    z; q, k and v in the dtype of products. `eps` is ε of a mean, or None for sums, which are multiplied by `scale`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        S: Tensor,
        z: Tensor,
        scale: float,
        eps: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (B, H, T, V), K = v.shape, q.shape[-1]
        ctx.fades, ctx.mean, N = g is not None, eps is not None, -(-T // CHUNK)
        q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
        g = S.new_zeros(B, H, T) if g is None else g.contiguous()
        S, z = S.contiguous(), z.contiguous()
        before, z_before = v.new_empty(B, H, N, K, V), z.new_empty(B, H, N, K)
        o, d = v.new_empty(B, T, H, V), S.new_empty(B, H, T)
        constants = S.new_tensor([LOWEST, scale, eps or 0])
        S_, z_ = torch.empty_like(S), torch.empty_like(z)
        rows = by_step(q, k, v)
        arrays = [g, S, z, constants, before, z_before, o, d, S_, z_]
        run(_forward, B * H, CHUNK, padded(K), padded(V), ctx.mean, ctx.fades, *rows, *arrays)
        ctx.save_for_backward(q, k, v, g, before, z_before, constants, *((o, d) if ctx.mean else ()))
        return o.transpose(1, 2), S_, z_

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor, dS: Tensor, dz: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, before, z_before, constants, *mean = ctx.saved_tensors
        (B, H, T, V), K = v.shape, q.shape[-1]
        do = do if do.stride(3) == 1 else do.contiguous()
        o, d = mean if ctx.mean else (v.new_empty(0, 0, 0, 0), g.new_empty(0, 0, 0))
        dq, dk, dv = (x.new_empty(B, T, H, x.shape[3]) for x in (q, k, v))
        dg, dS, dz = torch.empty_like(g), dS.contiguous(), dz.contiguous()
        first, z_first = torch.empty_like(dS), torch.empty_like(dz)
        rows = by_step(q, k, v, do)
        tensors = g, dS, dz, constants, before, z_before, o, d, dq, dk, dv, dg, first, z_first
        run(_backward, B * H, CHUNK, padded(K), padded(V), ctx.mean, ctx.fades, *rows, *tensors)
        by_head = [x.transpose(1, 2) for x in (dq, dk, dv)]
        return *by_head, dg if ctx.fades else None, first, z_first, None, None


@inlined
def renew(g, b, h, first, steps, own):  # type: ignore[no-untyped-def]
    """Log decays of a chunk; whether they are others than before. Those that stay need no new exponentials."""
    changed = False
    for t in range(len(own)):
        x = g[b, h, first + t] if t < steps else own.dtype.type(0)
        changed |= own[t] != x
        own[t] = x
    return changed


@inlined
def from_start(own, start, span):  # type: ignore[no-untyped-def]
    """D. Each span is added up by itself, as in `chunked`."""
    total = own[0] - own[0]
    for t in range(len(own)):
        total += own[t]
        span[t] = total
    for t in range(len(own)):
        start[t] = exp(span[t])


@inlined
def weights_by_query(own, lowest, weights, span, end):  # type: ignore[no-untyped-def]
    """Γ at [t, s], and its last row, E."""
    C = len(own)
    span[:] = lowest
    for t in range(C):
        log, row = own[t], weights[t * C : t * C + C]
        for s in range(C):
            span[s] += log
        span[t] = 0
        for s in range(C):
            row[s] = exp(span[s])
    for s in range(C):
        end[s] = weights[(C - 1) * C + s]


@inlined
def weights_by_key(own, lowest, weights, span, end):  # type: ignore[no-untyped-def]
    """Γ at [s, t], and E."""
    C = len(own)
    span[:] = lowest
    for i in range(C):
        s = C - 1 - i
        log, row = own[s], weights[s * C : s * C + C]
        span[s] = 0
        for t in range(C):
            row[t] = exp(span[t])
        for t in range(C):
            span[t] += log
        end[s] = row[C - 1]


@loop
def _forward(  # type: ignore[no-untyped-def]
    start, stop, C, K, V, mean, fades,
    q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t,
    g, S, z, constants, before, z_before, o, d, S_out, z_out,
):  # fmt: skip
    """Work items are heads of rows. K and V are padded."""
    _, T, H, width = o.shape
    N, depth = before.shape[2:4]
    lowest, scale, eps = constants[0], constants[1], constants[2]
    one = scale / scale
    Q, keys, keys_, turned = (
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
    )
    values, decayed, packed_pairs = (
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
    )
    state, state_right, pairs = aligned_zeros(K * V, before), aligned_zeros(K * V, before), aligned_zeros(C * C, before)
    S_, out, scores, weights = (
        aligned_zeros(K * V, S),
        aligned_zeros(C * V, S),
        aligned_zeros(C * C, S),
        aligned_zeros(C * C, S),
    )
    own, span, begin, end, totals, z_ = (
        aligned_zeros(C, S),
        aligned_zeros(C, S),
        aligned_zeros(C, S),
        aligned_zeros(C, S),
        aligned_zeros(C, S),
        aligned_zeros(K, S),
    )
    setup = enter(before)
    for item in range(start, stop):
        b, h = item // H, item % H
        own[:] = one
        load_matrix(S[b, h], width, S_, V)
        z_[:depth] = z[b, h]
        for n in range(N):
            first = n * C
            steps = min(C, T - first)
            take(q, b * q_b + h * q_h + first * q_t, q_t, steps, depth, C, Q, K, C)
            take(k, b * k_b + h * k_h + first * k_t, k_t, steps, depth, C, keys, K, C)
            take(v, b * v_b + h * v_h + first * v_t, v_t, steps, width, C, values, V, C)
            if renew(g, b, h, first, steps, own):
                from_start(own, begin, span)
                weights_by_query(own, lowest, weights, span, end)
            narrow(S_, state)
            store_matrix(state, width, V, before[b, h, n])
            transpose_right(keys, turned, C, K)
            product(Q, turned, scores, C, C, K, False)
            for i in range(C * C):
                scores[i] *= weights[i]
            narrow(scores, pairs)
            pack_pairs(state, state_right, K, V)
            product(Q, state_right, out, C, V, K, False)
            if fades:
                scale_rows(out, begin, C, V)
            pack_pairs(values, packed_pairs, C, V)
            product(pairs, packed_pairs, out, C, V, C, True)
            if mean:
                z_before[b, h, n] = z_[:depth]
                for t in range(C):
                    row, total = Q[t * K : t * K + K], eps - eps
                    for c in range(K):
                        total += widened(row[c]) * z_[c]
                    totals[t] = begin[t] * total + eps
                for t in range(C):
                    row, total = scores[t * C : t * C + C], totals[t]
                    for s in range(C):
                        total += row[s]
                    totals[t] = total
                for t in range(steps):
                    d[b, h, first + t] = totals[t]
                    totals[t] = one / totals[t]
                scale_rows(out, totals, steps, V)
                for i in range(K):
                    z_[i] *= begin[C - 1]
                add_rows(keys, end, C, K, z_)
            give(out, steps, width, V, scale, o, b, first, h)
            if fades:
                scale_into(values, end, C, V, decayed)
                pack_pairs(decayed, packed_pairs, C, V)
                kept = begin[C - 1]
                for i in range(K * V):
                    S_[i] *= kept
            pack_pairs(keys, turned, C, K)
            transpose_left(turned, keys_, C, K)
            product(keys_, packed_pairs, S_, K, V, C, True)
        store_matrix(S_, width, V, S_out[b, h])
        z_out[b, h] = z_[:depth]
    leave(setup, before)


@loop
def _backward(  # type: ignore[no-untyped-def]
    start, stop, C, K, V, mean, fades,
    q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t, do, do_b, do_h, do_t,
    g, dS, dz, constants, before, z_before, o, d, dq, dk, dv, dg, dS_out, dz_out,
):  # fmt: skip
    _, T, H, width = dv.shape
    N, depth = before.shape[2:4]
    lowest, scale = constants[0], constants[1]
    one, zero = scale / scale, scale - scale
    Q, keys, Q_, keys_, turned = (
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
    )
    values, slopes, slopes_, turned_v = (
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
    )
    state, after, after_ = aligned_zeros(K * V, before), aligned_zeros(K * V, before), aligned_zeros(K * V, before)
    pairs, dpairs, dpairs_ = aligned_zeros(C * C, before), aligned_zeros(C * C, before), aligned_zeros(C * C, before)
    scores, dscores, weights, G = (
        aligned_zeros(C * C, dS),
        aligned_zeros(C * C, dS),
        aligned_zeros(C * C, dS),
        aligned_zeros(K * V, dS),
    )
    by_key, by_value = aligned_zeros(C * K, dS), aligned_zeros(C * V, dS)
    own, span, begin, end, down, dtotals = (
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
    )
    asked, wrote, z_, G_z = aligned_zeros(C, dS), aligned_zeros(C, dS), aligned_zeros(K, dS), aligned_zeros(K, dS)
    setup = enter(before)
    for item in range(start, stop):
        b, h = item // H, item % H
        own[:] = one
        load_matrix(dS[b, h], width, G, V)
        G_z[:depth] = dz[b, h]
        for back in range(N):
            first = (N - 1 - back) * C
            n, steps = N - 1 - back, min(C, T - first)
            take(q, b * q_b + h * q_h + first * q_t, q_t, steps, depth, C, Q, K, -C)
            take(k, b * k_b + h * k_h + first * k_t, k_t, steps, depth, C, keys, K, -C)
            take(v, b * v_b + h * v_h + first * v_t, v_t, steps, width, C, values, V, -C)
            dtotals[:] = 0
            slopes[steps * V :] = 0
            for t in range(steps):
                at, row, factor = b * do_b + h * do_h + (first + t) * do_t, slopes[t * V : t * V + width], scale
                slope = do[at : at + width]
                if mean:
                    of, met = o[b, first + t, h], zero
                    for c in range(len(of)):
                        met += widened(slope[c]) * widened(of[c])
                    factor = scale / d[b, h, first + t]
                    dtotals[t] = -met / d[b, h, first + t]
                for c in range(len(row)):
                    row[c] = narrowed(factor * widened(slope[c]), row)
            load_matrix(before[b, h, n], width, state, V)
            if renew(g, b, h, first, steps, own):
                from_start(own, begin, span)
                weights_by_key(own, lowest, weights, span, end)
            kept = begin[C - 1]
            narrow(G, after)
            transpose_right(Q, turned, C, K)
            product(keys, turned, scores, C, C, K, False)
            transpose_right(slopes, turned_v, C, V)
            product(values, turned_v, dscores, C, C, V, False)
            if mean:
                for s in range(C):
                    row = dscores[s * C : s * C + C]
                    for t in range(C):
                        row[t] += dtotals[t]
            for i in range(C * C):
                dscores[i] *= weights[i]
            narrow(dscores, dpairs)
            if fades:
                asked[:] = 0
                wrote[:] = 0
                for s in range(C):
                    row, slope, total = scores[s * C : s * C + C], dscores[s * C : s * C + C], zero
                    for t in range(C):
                        span[t] = row[t] * slope[t]
                        asked[t] += span[t]
                    for t in range(C):
                        total += span[t]
                    down[s] = -total
            for i in range(C * C):
                scores[i] *= weights[i]
            narrow(scores, pairs)
            # dV
            pack_pairs(after, after_, K, V)
            product(keys, after_, by_value, C, V, K, False)
            if fades:
                scale_rows(by_value, end, C, V)
            pack_pairs(slopes, slopes_, C, V)
            product(pairs, slopes_, by_value, C, V, C, True)
            give(by_value, steps, width, V, one, dv, b, first, h)
            # dK
            transpose_right(after, after_, K, V)
            product(values, after_, by_key, C, K, V, False)
            if mean:
                for s in range(C):
                    row = by_key[s * K : s * K + K]
                    for i in range(K):
                        row[i] += G_z[i]
            if fades:
                scale_rows(by_key, end, C, K)
                dots(keys, by_key, C, K, wrote)
            pack_pairs(Q, Q_, C, K)
            product(dpairs, Q_, by_key, C, K, C, True)
            give(by_key, steps, depth, K, one, dk, b, first, h)
            # dQ
            transpose_right(state, after_, K, V)
            product(slopes, after_, by_key, C, K, V, False)
            if mean:
                z_[:depth] = z_before[b, h, n]
                for t in range(C):
                    row, slope = by_key[t * K : t * K + K], dtotals[t]
                    for i in range(K):
                        row[i] += slope * z_[i]
            if fades:
                scale_rows(by_key, begin, C, K)
                dots(Q, by_key, C, K, asked)
            pack_pairs(dpairs, dpairs_, C, C)
            transpose_left(dpairs_, dpairs, C, C)
            pack_pairs(keys, keys_, C, K)
            product(dpairs, keys_, by_key, C, K, C, True)
            give(by_key, steps, depth, K, one, dq, b, first, h)
            if fades:
                through = zero
                for i in range(K * V):
                    through += widened(state[i]) * G[i]
                if mean:
                    for i in range(K):
                        through += z_[i] * G_z[i]
                total = kept * through
                for s in range(C):
                    total += wrote[s]
                for i in range(C):
                    t = C - 1 - i
                    total += asked[t] + down[t] - wrote[t]
                    if t < steps:
                        dg[b, h, first + t] = total
            # G
            if fades:
                for i in range(K * V):
                    G[i] *= kept
                scale_into(slopes, begin, C, V, turned_v)
                pack_pairs(turned_v, slopes_, C, V)
            transpose_left(Q_, turned, C, K)
            product(turned, slopes_, G, K, V, C, True)
            if mean:
                for t in range(C):
                    dtotals[t] *= begin[t]
                for i in range(K):
                    G_z[i] *= kept
                for i in range(depth):
                    row, total = turned[i * C : i * C + C], zero
                    for t in range(C):
                        total += dtotals[t] * widened(row[t])
                    G_z[i] += total
        store_matrix(G, width, V, dS_out[b, h])
        dz_out[b, h] = G_z[:depth]
    leave(setup, before)
