"""Chunked linear attention with a decay per head, its elementwise work in compiled loops. Equation: see `chunked`.

The matrix products are torch's, in the dtype `products`; what stands between them passes through memory once, in that
dtype. Spans of log decays are added up row by row from the last key to the first, span(s − 1, t) = span(s, t) + g_s:
no digits cancel, and −inf stays exact. The gradient of g_r is the sum of what spans with s < r ≤ t get.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import by_step, narrowed, widened
from zoo.ops.cpu.jit import exp, loop
from zoo.ops.cpu.threads import run
from zoo.ops.linear_attention.chunked import LOWEST, cut, fused

LANES = 16
"""Loops over steps t ≥ s begin at a multiple of it."""


class CompiledHeadDecay(torch.autograd.Function):
    """As `Chunked` with a decay (B, H, T) in S's dtype: o in v's dtype, and the final state.

    Saved are q and k cut into chunks, their pairs [s, t], values by head, the states before chunks and what is read of
    them, and decays: from the start to each step and from behind each step to the end of its chunk.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, C: int, products: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [x.dtype for x in (q, k, v)]
        (B, H, T, V), (G, K) = v.shape, q.shape[1::2]
        R, N, g = H // G, -(-T // C), g.contiguous()
        Q, K_ = (cut(x, C, products) for x in (q, k))  # (B, G, N, C, K)
        pairs = (K_ @ Q.mT).contiguous()
        weighed, rows = (pairs.new_empty(B, G, N, R, C, width) for width in (C, V))
        written = pairs.new_empty(B, G, N, C, R, V)
        decays = g.new_empty(2, B, G, N, R, C)
        v_, lowest = v if v.stride(3) == 1 else v.contiguous(), g.new_tensor([LOWEST])
        arrays = [g, pairs, lowest, weighed, rows, written, decays]
        run(_weigh, B * G * N, *by_step(v_), *arrays)
        added = (K_.mT @ written.flatten(-2)).contiguous()  # (B, G, N, K, R·V)
        before, final = torch.empty_like(added), torch.empty_like(S, memory_format=torch.contiguous_format)
        arrays = [added, decays, S, before, final]
        run(_carry, B * G * K, *arrays, grain=K)
        inside, read = weighed.mT @ rows, (Q @ before).contiguous()
        o = torch.empty(B, T, H, V, dtype=v.dtype)
        arrays = [inside, read, decays, o]
        run(_combine, B * G * N, *arrays)
        ctx.save_for_backward(Q, K_, g, pairs, rows, before, read, decays)
        return o.transpose(1, 2), final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor | None, dS: Tensor | None) -> tuple[Tensor | None, ...]:
        Q, K_, g, pairs, rows, before, read, decays = ctx.saved_tensors
        (B, G, N, R, _, V), H, T = rows.shape, g.shape[1], g.shape[2]
        do = rows.new_zeros(B, T, H, V).transpose(1, 2) if do is None else do.to(ctx.dtypes[2])
        do_ = do if do.stride(3) == 1 else do.contiguous()
        dS = decays.new_zeros(B, H, K_.shape[-1], V) if dS is None else dS
        by_head, asked, written = torch.empty_like(rows), torch.empty_like(read), torch.empty_like(read)
        arrays = [rows, decays, by_head, asked, written]
        run(_part, B * G * N, T, *by_step(do_), *arrays)
        told = Q.mT @ asked
        after, first = torch.empty_like(before), torch.empty_like(dS, memory_format=torch.contiguous_format)
        kept = decays.new_empty(B, G, K_.shape[-1], N, R)
        arrays = [told, decays, dS, before, after, first, kept]
        run(_carry_back, B * G * K_.shape[-1], *arrays, grain=K_.shape[-1])
        weighed, dpairs, dg = (rows @ by_head.mT).contiguous(), torch.empty_like(pairs), torch.empty_like(g)
        spans, lowest = torch.empty_like(decays[0]), g.new_tensor([LOWEST])
        arrays = [g, pairs, lowest, weighed, dpairs, spans]
        run(_weigh_back, B * G * N, *arrays)
        inside, told = weighed @ by_head, K_ @ after
        dv = torch.empty(B, T, H, V, dtype=ctx.dtypes[2])
        arrays = [rows, by_head, inside, read, told, decays, kept.sum(2), spans, dv, dg]
        run(_combine_back, B * G * N, *arrays)
        dq = fused(dpairs.mT @ K_, asked, before.mT).flatten(2, 3)[:, :, :T].to(ctx.dtypes[0])
        dk = fused(dpairs @ Q, written, after.mT).flatten(2, 3)[:, :, :T].to(ctx.dtypes[1])
        return dq, dk, dv.transpose(1, 2), dg, first, None, None


@loop
def _weigh(start, stop, v, of_b, of_h, of_t, g, pairs, lowest, weighed, rows, written, decays):  # type: ignore[no-untyped-def]
    """Work items are chunks (b, group, n). pairs ⊙ e^spans; v by head, and decayed to the chunk's end."""
    _, G, N, R, C, V = rows.shape
    T = g.shape[2]
    own, span, weight = np.empty(C, g.dtype), np.empty(C, g.dtype), np.empty(C, g.dtype)
    for item in range(start, stop):
        b, group, n = item // (G * N), item // N % G, item % N
        steps = min(C, T - n * C)
        for r in range(R):
            own[steps:] = 0
            own[:steps] = g[b, group * R + r, n * C : n * C + steps]
            total = 0.0
            for t in range(C):
                total += own[t]
                span[t] = total
            for t in range(C):
                weight[t] = exp(span[t])
                decays[0, b, group, n, r, t] = weight[t]
            span[:] = lowest[0]
            for i in range(C):
                s = C - 1 - i
                span[s] = 0
                log, pairs_, to = own[s], pairs[b, group, n, s], weighed[b, group, n, r, s]
                for t in range(C):
                    weight[t] = exp(span[t])
                    span[t] += log
                for t in range(C):
                    to[t] = narrowed(weight[t] * widened(pairs_[t]), to)
                decays[1, b, group, n, r, s] = weight[C - 1]
        for s in range(C):
            for r in range(R):
                kept, row, row_out = decays[1, b, group, n, r, s], rows[b, group, n, r, s], written[b, group, n, s, r]
                if s < steps:
                    at = b * of_b + (group * R + r) * of_h + (n * C + s) * of_t
                    v_ = v[at : at + V]
                    for c in range(V):
                        row[c] = narrowed(widened(v_[c]), row)
                    for c in range(V):
                        row_out[c] = narrowed(kept * widened(v_[c]), row_out)
                else:
                    row[:] = 0
                    row_out[:] = 0


@loop
def _carry(start, stop, added, decays, S, before, final):  # type: ignore[no-untyped-def]
    """Work items are key channels (b, group, i): S ← e^{b_C} S + what a chunk adds."""
    _, G, N, K, _ = added.shape
    R, C, V = decays.shape[4], decays.shape[5], S.shape[3]
    line = np.empty(V, S.dtype)
    for item in range(start, stop):
        b, group, i = item // (G * K), item // K % G, item % K
        for r in range(R):
            line[:] = S[b, group * R + r, i]
            for n in range(N):
                kept = decays[0, b, group, n, r, C - 1]
                added_, to = added[b, group, n, i, r * V : r * V + V], before[b, group, n, i, r * V : r * V + V]
                for c in range(V):
                    to[c] = narrowed(line[c], to)
                for c in range(V):
                    line[c] = kept * line[c] + widened(added_[c])
            final[b, group * R + r, i] = line


@loop
def _combine(start, stop, inside, read, decays, o):  # type: ignore[no-untyped-def]
    """o, of what stands in the chunk and what is read of the state before it."""
    _, G, N, R, C, V = inside.shape
    T = o.shape[1]
    for item in range(start, stop):
        b, group, n = item // (G * N), item // N % G, item % N
        for t in range(min(C, T - n * C)):
            for r in range(R):
                inside_, read_ = inside[b, group, n, r, t], read[b, group, n, t, r * V : r * V + V]
                kept, to = decays[0, b, group, n, r, t], o[b, n * C + t, group * R + r]
                for c in range(V):
                    to[c] = narrowed(widened(inside_[c]) + kept * widened(read_[c]), to)


@loop
def _part(start, stop, T, do, of_b, of_h, of_t, rows, decays, by_head, asked, written):  # type: ignore[no-untyped-def]
    """do by head, and decayed from the chunk's start; v decayed to its end."""
    _, G, N, R, C, V = rows.shape
    for item in range(start, stop):
        b, group, n = item // (G * N), item // N % G, item % N
        for t in range(C):
            for r in range(R):
                begun, kept = decays[0, b, group, n, r, t], decays[1, b, group, n, r, t]
                v_, row_out = rows[b, group, n, r, t], written[b, group, n, t, r * V : r * V + V]
                row, row_in = by_head[b, group, n, r, t], asked[b, group, n, t, r * V : r * V + V]
                for c in range(V):
                    row_out[c] = narrowed(kept * widened(v_[c]), row_out)
                if n * C + t < T:
                    at = b * of_b + (group * R + r) * of_h + (n * C + t) * of_t
                    do_ = do[at : at + V]
                    for c in range(V):
                        row[c] = narrowed(widened(do_[c]), row)
                    for c in range(V):
                        row_in[c] = narrowed(begun * widened(do_[c]), row_in)
                else:
                    row[:] = 0
                    row_in[:] = 0


@loop
def _carry_back(start, stop, told, decays, dS, before, after, first, kept):  # type: ignore[no-untyped-def]
    """Gradients of the states after chunks, and of ln e^{b_C} by key channel."""
    _, G, N, K, _ = told.shape
    R, C, V = decays.shape[4], decays.shape[5], dS.shape[3]
    line = np.empty(V, dS.dtype)
    for item in range(start, stop):
        b, group, i = item // (G * K), item // K % G, item % K
        for r in range(R):
            line[:] = dS[b, group * R + r, i]
            for back in range(N):
                n = N - 1 - back
                decay = decays[0, b, group, n, r, C - 1]
                told_, before_ = told[b, group, n, i, r * V : r * V + V], before[b, group, n, i, r * V : r * V + V]
                to, met = after[b, group, n, i, r * V : r * V + V], decay - decay
                for c in range(V):
                    to[c] = narrowed(line[c], to)
                for c in range(V):
                    line[c] *= decay
                    met += line[c] * widened(before_[c])
                    line[c] += widened(told_[c])
                kept[b, group, i, n, r] = met
            first[b, group * R + r, i] = line


@loop
def _weigh_back(start, stop, g, pairs, lowest, weighed, dpairs, spans):  # type: ignore[no-untyped-def]
    """Of d(pairs ⊙ e^spans) in `weighed`: dpairs, and the part of dg. Leaves pairs ⊙ e^spans in its place."""
    _, G, N, R, C, _ = weighed.shape
    T = g.shape[2]
    own, span, sums = np.empty(C, g.dtype), np.empty(C, g.dtype), np.empty(C, g.dtype)
    all_, met = np.empty(C * C, g.dtype), np.empty(C * C, g.dtype)
    pair = np.empty(C, g.dtype)
    for item in range(start, stop):
        b, group, n = item // (G * N), item // N % G, item % N
        steps = min(C, T - n * C)
        all_[:] = 0
        for r in range(R):
            own[steps:] = 0
            own[:steps] = g[b, group * R + r, n * C : n * C + steps]
            span[:], pair[:] = lowest[0], 0
            for i in range(C):
                s = C - 1 - i
                span[s] = 0
                pairs_, slope_ = pairs[b, group, n, s], weighed[b, group, n, r, s]
                first, log = s // LANES * LANES, own[s]
                to, sum_ = met[s * C + first : s * C + C], all_[s * C + first : s * C + C]
                met[s * C : s * C + first] = 0
                later, over, made, weighs = slope_[first:], pairs_[first:], pair[first:], span[first:]
                for t in range(len(to)):
                    weight = exp(weighs[t])
                    weighs[t] += log
                    slope = weight * widened(later[t])
                    sum_[t] += slope
                    made[t] = weight * widened(over[t])
                    to[t] = slope * widened(over[t])
                for t in range(C):
                    slope_[t] = narrowed(pair[t], slope_)
            # Column sums over s < r of the columns t ≥ r.
            sums[:] = 0
            spans[b, group, n, r, 0] = 0
            for s in range(C - 1):
                of = met[s * C : s * C + C]
                for t in range(C):
                    sums[t] += of[t]
                sums[s] = 0
                total = sums[s]
                for t in range(C):
                    total += sums[t]
                spans[b, group, n, r, s + 1] = total
        for s in range(C):
            of, out = all_[s * C : s * C + C], dpairs[b, group, n, s]
            for t in range(C):
                out[t] = narrowed(of[t], out)


@loop
def _combine_back(start, stop, rows, by_head, inside, read, told, decays, kept, spans, dv, dg):  # type: ignore[no-untyped-def]
    """dv, and dg of spans in the chunk, from its start to t ≥ r, from s < r to its end, and of the whole."""
    _, G, N, R, C, V = rows.shape
    T = dv.shape[1]
    begun, ended = np.empty((R, C), decays.dtype), np.empty((R, C), decays.dtype)
    for item in range(start, stop):
        b, group, n = item // (G * N), item // N % G, item % N
        steps = min(C, T - n * C)
        for t in range(steps):
            for r in range(R):
                v_, do_, inside_ = rows[b, group, n, r, t], by_head[b, group, n, r, t], inside[b, group, n, r, t]
                read_, told_ = read[b, group, n, t, r * V : r * V + V], told[b, group, n, t, r * V : r * V + V]
                from_start, to_end = decays[0, b, group, n, r, t], decays[1, b, group, n, r, t]
                asked = from_start - from_start
                wrote, to = asked, dv[b, n * C + t, group * R + r]
                for c in range(V):
                    to[c] = narrowed(widened(inside_[c]) + to_end * widened(told_[c]), to)
                for c in range(V):
                    wrote += widened(told_[c]) * widened(v_[c])
                    asked += widened(do_[c]) * widened(read_[c])
                begun[r, t], ended[r, t] = from_start * asked, to_end * wrote
        for r in range(R):
            h, total = group * R + r, kept[b, group, n, r]
            for t in range(steps):
                dg[b, h, n * C + t] = total + spans[b, group, n, r, t]
                total += ended[r, t]
            total = kept[b, group, n, r] * 0
            for i in range(steps):
                t = steps - 1 - i
                total += begun[r, t]
                dg[b, h, n * C + t] += total
