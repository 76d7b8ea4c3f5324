"""The delta rule in chunks, each head from its first step to its last in one loop; equations and names as in `wy`.

Products are those of `zoo.ops.cpu.matmul`, the inverse in float32; what is between them stays in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import by_step, widened
from zoo.ops.cpu.dplr import invert
from zoo.ops.cpu.jit import inlined, loop
from zoo.ops.cpu.linear_attention import CHUNK, from_start, renew, weights_by_query
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
from zoo.ops.cpu.matrices import dots, give, load_matrix, scale_into, scale_rows, store_matrix, take
from zoo.ops.cpu.threads import run
from zoo.ops.linear_attention.chunked import LOWEST


class TiledWY(torch.autograd.Function):
    """o (B, H, T, V) in v's dtype and the last S, from q, k and v in the dtype of products, beta (B, H, T), a decay
    (B, H, T) or None and S (B, H, K, V).
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None, S: Tensor
    ) -> tuple[Tensor, Tensor]:
        (B, H, T, V), K, ctx.fades = v.shape, q.shape[-1], g is not None
        q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
        beta, S, N = beta.contiguous(), S.contiguous(), -(-T // CHUNK)
        g = S.new_zeros(B, H, T) if g is None else g.contiguous()
        before, solve, e = v.new_empty(B, H, N, K, V), v.new_empty(B, H, N, CHUNK**2), v.new_empty(B, H, N, CHUNK, V)
        o, last, lowest = v.new_empty(B, T, H, V), torch.empty_like(S), S.new_tensor([LOWEST])
        rows = by_step(q, k, v)
        arrays = [beta, g, S, lowest, before, solve, e, o, last]
        run(_forward, B * H, CHUNK, padded(K), padded(V), ctx.fades, *rows, *arrays)
        ctx.save_for_backward(q, k, beta, g, lowest, before, solve, e)
        return o.transpose(1, 2), last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor, dS: Tensor) -> tuple[Tensor | None, ...]:
        q, k, beta, g, lowest, before, solve, e = ctx.saved_tensors
        (B, H, T, K), V = q.shape, before.shape[-1]
        do, dS = do if do.stride(3) == 1 else do.contiguous(), dS.contiguous()
        dq, dk, dv = (q.new_empty(B, T, H, width) for width in (K, K, V))
        db, dg, first = torch.empty_like(beta), torch.empty_like(g), torch.empty_like(dS)
        rows = by_step(q, k, do)
        arrays = [beta, g, dS, lowest, before, solve, e, dq, dk, dv, db, dg, first]
        run(_backward, B * H, CHUNK, padded(K), padded(V), ctx.fades, *rows, *arrays)
        return *(x.transpose(1, 2) for x in (dq, dk, dv)), db, dg if ctx.fades else None, first


@inlined
def _shared(slopes, pairs, C, by_row, by_column):  # type: ignore[no-untyped-def]
    """Of log decays: sums of slopes ⊙ pairs, which are zero where a step does not read."""
    for t in range(C):
        row, pair, total = slopes[t * C : t * C + C], pairs[t * C : t * C + C], by_row[t]
        for s in range(C):
            by_column[s] += row[s] * pair[s]
        for s in range(C):
            total += row[s] * pair[s]
        by_row[t] = total


@loop
def _forward(  # type: ignore[no-untyped-def]
    start, stop, C, K, V, fades,
    q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t,
    beta, g, S, lowest, before, solve, e, o, last,
):  # fmt: skip
    """Work items are heads of rows. K and V are padded."""
    _, T, H, width = o.shape
    N, depth = before.shape[2:4]
    one = lowest[0] / lowest[0]
    Q, keys, keys_, turned = (
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
    )
    values, errors, writes = aligned_zeros(C * V, before), aligned_zeros(C * V, before), aligned_zeros(C * V, before)
    packed_pairs, pairs, inverse = (
        aligned_zeros(C * V, before),
        aligned_zeros(C * C, before),
        aligned_zeros(C * C, before),
    )
    state, state_right = aligned_zeros(K * V, before), aligned_zeros(K * V, before)
    S_, read, out, scores, coupling = (
        aligned_zeros(K * V, S),
        aligned_zeros(C * V, S),
        aligned_zeros(C * V, S),
        aligned_zeros(C * C, S),
        aligned_zeros(C * C, S),
    )
    weights, solved, line = aligned_zeros(C * C, S), np.zeros((C, C), S.dtype), aligned_zeros(C, S)
    own, span, begin, end, b_ = (
        aligned_zeros(C, S),
        aligned_zeros(C, S),
        aligned_zeros(C, S),
        aligned_zeros(C, S),
        aligned_zeros(C, S),
    )
    setup = enter(before)
    for item in range(start, stop):
        b, h = item // H, item % H
        own[:] = one
        load_matrix(S[b, h], width, S_, V)
        for n in range(N):
            first = n * C
            steps = min(C, T - first)
            take(q, b * q_b + h * q_h + first * q_t, q_t, steps, depth, C, Q, K, C)
            take(k, b * k_b + h * k_h + first * k_t, k_t, steps, depth, C, keys, K, C)
            take(v, b * v_b + h * v_h + first * v_t, v_t, steps, width, C, values, V, C)
            renew(beta, b, h, first, steps, b_)
            if renew(g, b, h, first, steps, own):
                from_start(own, begin, span)
                weights_by_query(own, lowest[0], weights, span, end)
            narrow(S_, state)
            store_matrix(state, width, V, before[b, h, n])
            transpose_right(keys, turned, C, K)
            product(Q, turned, scores, C, C, K, False)
            for i in range(C * C):
                scores[i] *= weights[i]
            narrow(scores, pairs)
            product(keys, turned, coupling, C, C, K, False)
            for t in range(C):
                row, weight = coupling[t * C : t * C + C], weights[t * C : t * C + C]
                for s in range(C):
                    row[s] *= weight[s] * b_[s]
            invert(coupling.reshape(C, C), solved, line)
            narrow(solved.reshape(C * C), inverse)
            to = solve[b, h, n]
            for i in range(len(to)):
                to[i] = inverse[i]
            pack_pairs(state, state_right, K, V)
            product(keys, state_right, read, C, V, K, False)
            if fades:
                scale_rows(read, begin, C, V)
            for i in range(C * V):
                read[i] = widened(values[i]) - read[i]
            narrow(read, errors)
            pack_pairs(errors, packed_pairs, C, V)
            product(inverse, packed_pairs, read, C, V, C, False)
            narrow(read, errors)
            store_matrix(errors, width, V, e[b, h, n])
            scale_rows(read, b_, C, V)
            narrow(read, writes)
            pack_pairs(writes, packed_pairs, C, V)
            product(Q, state_right, out, C, V, K, False)
            if fades:
                scale_rows(out, begin, C, V)
            product(pairs, packed_pairs, out, C, V, C, True)
            give(out, steps, width, V, one, o, b, first, h)
            if fades:
                scale_into(writes, end, C, V, errors)
                pack_pairs(errors, packed_pairs, C, V)
                kept = begin[C - 1]
                for i in range(K * V):
                    S_[i] *= kept
            pack_pairs(keys, turned, C, K)
            transpose_left(turned, keys_, C, K)
            product(keys_, packed_pairs, S_, K, V, C, True)
        store_matrix(S_, width, V, last[b, h])
    leave(setup, before)


@loop
def _backward(  # type: ignore[no-untyped-def]
    start, stop, C, K, V, fades,
    q, q_b, q_h, q_t, k, k_b, k_h, k_t, do, do_b, do_h, do_t,
    beta, g, dS, lowest, before, solve, e, dq, dk, dv, db, dg, dS_out,
):  # fmt: skip
    _, T, H, width = dv.shape
    N, depth = before.shape[2:4]
    one = lowest[0] / lowest[0]
    zero = one - one
    Q, keys, Q_, keys_, turned = (
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
        aligned_zeros(C * K, before),
    )
    slopes, slopes_, Z, Z_ = (
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
    )
    errors, writes, writes_, packed_pairs = (
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
        aligned_zeros(C * V, before),
    )
    state, turned_state, after, after_ = (
        aligned_zeros(K * V, before),
        aligned_zeros(K * V, before),
        aligned_zeros(K * V, before),
        aligned_zeros(K * V, before),
    )
    square, square_, square_turned = (
        aligned_zeros(C * C, before),
        aligned_zeros(C * C, before),
        aligned_zeros(C * C, before),
    )
    Y_k, Y_q, inverse = aligned_zeros(C * C, before), aligned_zeros(C * C, before), aligned_zeros(C * C, before)
    P, M, scores, weights = (
        aligned_zeros(C * C, dS),
        aligned_zeros(C * C, dS),
        aligned_zeros(C * C, dS),
        aligned_zeros(C * C, dS),
    )
    G, f, change, by_key, by_query = (
        aligned_zeros(K * V, dS),
        aligned_zeros(C * V, dS),
        aligned_zeros(C * V, dS),
        aligned_zeros(C * K, dS),
        aligned_zeros(C * K, dS),
    )
    own, span, begin, end, b_, across = (
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
        aligned_zeros(C, dS),
    )
    asked, wrote, met = aligned_zeros(C, dS), aligned_zeros(C, dS), aligned_zeros(C, dS)
    setup = enter(before)
    for item in range(start, stop):
        b, h = item // H, item % H
        own[:] = one
        load_matrix(dS[b, h], width, G, V)
        for back in range(N):
            n = N - 1 - back
            first = n * C
            steps = min(C, T - first)
            take(q, b * q_b + h * q_h + first * q_t, q_t, steps, depth, C, Q, K, -C)
            take(k, b * k_b + h * k_h + first * k_t, k_t, steps, depth, C, keys, K, -C)
            take(do, b * do_b + h * do_h + first * do_t, do_t, steps, width, C, slopes, V, -C)
            load_matrix(before[b, h, n], width, state, V)
            load_matrix(e[b, h, n], width, errors, V)
            renew(beta, b, h, first, steps, b_)
            of = solve[b, h, n]
            for i in range(len(of)):
                inverse[i] = of[i]
            if renew(g, b, h, first, steps, own):
                from_start(own, begin, span)
                weights_by_query(own, lowest[0], weights, span, end)
            kept = begin[C - 1]
            scale_into(errors, b_, C, V, writes)
            narrow(G, after)
            transpose_right(keys, turned, C, K)
            product(Q, turned, P, C, C, K, False)
            for i in range(C * C):
                P[i] *= weights[i]
            product(keys, turned, M, C, C, K, False)
            for i in range(C * C):
                M[i] *= weights[i]
            for t in range(C):
                M[t * C + t] = 0
            # f, first without what later steps of the chunk read of it
            pack_pairs(after, after_, K, V)
            product(keys, after_, f, C, V, K, False)
            if fades:
                scale_rows(f, end, C, V)
            narrow(P, square)
            pack_pairs(square, square_, C, C)
            transpose_left(square_, square_turned, C, C)
            pack_pairs(slopes, slopes_, C, V)
            product(square_turned, slopes_, f, C, V, C, True)
            for t in range(C):
                row, to, factor = f[t * V : t * V + V], change[t * V : t * V + V], b_[t]
                for c in range(V):
                    to[c] = factor * row[c]
            narrow(change, Z)
            pack_pairs(Z, Z_, C, V)
            pack_pairs(inverse, square_, C, C)
            transpose_left(square_, square_turned, C, C)
            product(square_turned, Z_, change, C, V, C, False)
            give(change, steps, width, V, one, dv, b, first, h)
            for i in range(C * V):
                change[i] = -change[i]
            narrow(change, Z)
            pack_pairs(Z, Z_, C, V)
            narrow(M, square)
            pack_pairs(square, square_, C, C)
            transpose_left(square_, square_turned, C, C)
            product(square_turned, Z_, f, C, V, C, True)
            met[:] = 0
            dots(errors, f, C, V, met)
            for t in range(steps):
                db[b, h, first + t] = met[t]
            # Y
            transpose_right(writes, writes_, C, V)
            if fades:
                asked[:] = 0
                across[:] = 0
            product(Z, writes_, scores, C, C, V, False)
            if fades:
                _shared(scores, M, C, asked, across)
            for t in range(C):
                row, weight = scores[t * C : t * C + C], weights[t * C : t * C + C]
                for s in range(C):
                    row[s] *= weight[s]
                row[t] = 0
            narrow(scores, Y_k)
            product(slopes, writes_, scores, C, C, V, False)
            if fades:
                _shared(scores, P, C, asked, across)
            for i in range(C * C):
                scores[i] *= weights[i]
            narrow(scores, Y_q)
            # dK and dQ
            pack_pairs(keys, keys_, C, K)
            pack_pairs(Q, Q_, C, K)
            transpose_right(state, turned_state, K, V)
            product(slopes, turned_state, by_query, C, K, V, False)
            product(Z, turned_state, by_key, C, K, V, False)
            if fades:
                scale_rows(by_query, begin, C, K)
                scale_rows(by_key, begin, C, K)
                dots(Q, by_query, C, K, asked)
                dots(keys, by_key, C, K, asked)
            product(Y_q, keys_, by_query, C, K, C, True)
            give(by_query, steps, depth, K, one, dq, b, first, h)
            product(Y_k, keys_, by_key, C, K, C, True)
            pack_pairs(Y_k, square_, C, C)
            transpose_left(square_, square_turned, C, C)
            product(square_turned, keys_, by_key, C, K, C, True)
            pack_pairs(Y_q, square_, C, C)
            transpose_left(square_, square_turned, C, C)
            product(square_turned, Q_, by_key, C, K, C, True)
            transpose_right(after, after_, K, V)
            product(writes, after_, by_query, C, K, V, False)
            if fades:
                scale_rows(by_query, end, C, K)
                wrote[:] = 0
                dots(keys, by_query, C, K, wrote)
                through = zero
                for i in range(K * V):
                    through += widened(state[i]) * G[i]
                total = kept * through
                for s in range(C):
                    total += wrote[s]
                for i in range(C):
                    t = C - 1 - i
                    total += asked[t] - across[t] - wrote[t]
                    if t < steps:
                        dg[b, h, first + t] = total
                for i in range(K * V):
                    G[i] *= kept
                scale_into(slopes, begin, C, V, packed_pairs)
                pack_pairs(packed_pairs, slopes_, C, V)
                scale_into(Z, begin, C, V, packed_pairs)
                pack_pairs(packed_pairs, Z_, C, V)
            for i in range(C * K):
                by_key[i] += by_query[i]
            give(by_key, steps, depth, K, one, dk, b, first, h)
            # G
            transpose_left(Q_, turned, C, K)
            product(turned, slopes_, G, K, V, C, True)
            transpose_left(keys_, turned, C, K)
            product(turned, Z_, G, K, V, C, True)
        store_matrix(G, width, V, dS_out[b, h])
    leave(setup, before)
