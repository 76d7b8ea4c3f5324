"""State space duality in chunks, as `zoo.ops.cpu.head_decay`: between the products, Δ x is made where values
are put in order by head, and D x is added where outputs are.

    dv = gradient of Δ x,    dx = Δ dv + D ⊙ dy,    dΔ = Σ dv x,    dD = Σ dy ⊙ x
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import by_step, narrowed, widened
from zoo.ops.cpu.head_decay import LANES, _carry, _carry_back, _part, _weigh_back
from zoo.ops.cpu.jit import exp, loop
from zoo.ops.cpu.threads import run
from zoo.ops.linear_attention.chunked import LOWEST, cut, fused


class CompiledSSD(torch.autograd.Function):
    """y in the dtype of x, and the final state; Δ, g, D and S in one dtype.

    Saved are x, Δ, D and what `CompiledHeadDecay` saves.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        delta: Tensor,
        g: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        S: Tensor,
        size: int,
        products: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [C.dtype, B.dtype]
        (b, H, T, P), (G, K) = x.shape, B.shape[1::2]
        R, N, x = H // G, -(-T // size), x if x.stride(3) == 1 else x.contiguous()
        delta, g, D = (t.contiguous() for t in (delta, g, D))
        Q, K_ = (cut(t, size, products) for t in (C, B))  # (b, G, N, C, K)
        pairs = (K_ @ Q.mT).contiguous()
        weighed, rows = (pairs.new_empty(b, G, N, R, size, width) for width in (size, P))
        written = pairs.new_empty(b, G, N, size, R, P)
        decays = g.new_empty(2, b, G, N, R, size)
        arrays = [delta, g, pairs, g.new_tensor([LOWEST]), weighed, rows, written, decays]
        run(_weigh, b * G * N, *by_step(x), *arrays)
        added = (K_.mT @ written.flatten(-2)).contiguous()  # (b, G, N, K, R·P)
        before, final = torch.empty_like(added), torch.empty_like(S, memory_format=torch.contiguous_format)
        run(_carry, b * G * K, added, decays, S, before, final, grain=K)
        inside, read = weighed.mT @ rows, (Q @ before).contiguous()
        y = torch.empty(b, T, H, P, dtype=x.dtype)
        run(_combine, b * G * N, *by_step(x), inside, read, decays, D, y)
        ctx.save_for_backward(x, delta, D, Q, K_, g, pairs, rows, before, read, decays)
        return y.transpose(1, 2), final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dS: Tensor | None) -> tuple[Tensor | None, ...]:
        x, delta, D, Q, K_, g, pairs, rows, before, read, decays = ctx.saved_tensors
        (b, G, N, R, _, P), (H, T) = rows.shape, g.shape[1:]
        dy = rows.new_zeros(b, T, H, P).transpose(1, 2) if dy is None else dy.to(x.dtype)
        dy = dy if dy.stride(3) == 1 else dy.contiguous()
        dS = decays.new_zeros(b, H, K_.shape[-1], P) if dS is None else dS
        by_head, asked, written = torch.empty_like(rows), torch.empty_like(read), torch.empty_like(read)
        arrays = [rows, decays, by_head, asked, written]
        run(_part, b * G * N, T, *by_step(dy), *arrays)
        told = Q.mT @ asked
        after, first = torch.empty_like(before), torch.empty_like(dS, memory_format=torch.contiguous_format)
        kept = decays.new_empty(b, G, K_.shape[-1], N, R)
        arrays = [told, decays, dS, before, after, first, kept]
        run(_carry_back, b * G * K_.shape[-1], *arrays, grain=K_.shape[-1])
        weighed, dpairs = (rows @ by_head.mT).contiguous(), torch.empty_like(pairs)
        spans = torch.empty_like(decays[0])
        run(_weigh_back, b * G * N, g, pairs, g.new_tensor([LOWEST]), weighed, dpairs, spans)
        inside, told = weighed @ by_head, K_ @ after
        dx, ddelta, dg = torch.empty(b, T, H, P, dtype=x.dtype), torch.empty_like(delta), torch.empty_like(g)
        dD = D.new_empty(b, G, N, R, P)
        arrays = [rows, by_head, inside, read, told, decays, kept.sum(2), spans, delta, D]
        outputs = [dx, ddelta, dg, dD]
        run(_combine_back, b * G * N, *by_step(x), *arrays, *outputs)
        dC = fused(dpairs.mT @ K_, asked, before.mT).flatten(2, 3)[:, :, :T].to(ctx.dtypes[0])
        dB = fused(dpairs @ Q, written, after.mT).flatten(2, 3)[:, :, :T].to(ctx.dtypes[1])
        return dx.transpose(1, 2), ddelta, dg, dB, dC, dD.sum((0, 2)).flatten(0, 1), first, None, None


@loop
def _weigh(start, stop, x, of_b, of_h, of_t, delta, g, pairs, lowest, weighed, rows, written, decays):  # type: ignore[no-untyped-def]
    """Work items are chunks (b, group, n). pairs ⊙ e^spans; Δ x by head, and decayed to the chunk's end."""
    _, G, N, R, C, P = rows.shape
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
            span[:], weight[:] = lowest[0], 0
            for i in range(C):
                s = C - 1 - i
                span[s] = 0
                log, first = own[s], s // LANES * LANES
                span_, weight_ = span[first:], weight[first:]
                pairs_, to = pairs[b, group, n, s], weighed[b, group, n, r, s]
                for t in range(len(weight_)):
                    weight_[t] = exp(span_[t])
                    span_[t] += log
                for t in range(C):
                    to[t] = narrowed(weight[t] * widened(pairs_[t]), to)
                decays[1, b, group, n, r, s] = weight[C - 1]
        for s in range(C):
            for r in range(R):
                kept, row, row_out = decays[1, b, group, n, r, s], rows[b, group, n, r, s], written[b, group, n, s, r]
                if s < steps:
                    h = group * R + r
                    at, step = b * of_b + h * of_h + (n * C + s) * of_t, delta[b, h, n * C + s]
                    x_ = x[at : at + P]
                    for c in range(P):
                        row[c] = narrowed(step * widened(x_[c]), row)
                    for c in range(P):
                        row_out[c] = narrowed(kept * step * widened(x_[c]), row_out)
                else:
                    row[:] = 0
                    row_out[:] = 0


@loop
def _combine(start, stop, x, of_b, of_h, of_t, inside, read, decays, D, y):  # type: ignore[no-untyped-def]
    """y, of what stands in the chunk, what is read of the state before it, and D x."""
    _, G, N, R, C, P = inside.shape
    T = y.shape[1]
    for item in range(start, stop):
        b, group, n = item // (G * N), item // N % G, item % N
        for t in range(min(C, T - n * C)):
            for r in range(R):
                h = group * R + r
                inside_, read_ = inside[b, group, n, r, t], read[b, group, n, t, r * P : r * P + P]
                kept, to, D_, at = (
                    decays[0, b, group, n, r, t],
                    y[b, n * C + t, h],
                    D[h],
                    b * of_b + h * of_h + (n * C + t) * of_t,
                )
                x_ = x[at : at + P]
                for c in range(P):
                    to[c] = narrowed(widened(inside_[c]) + kept * widened(read_[c]) + D_[c] * widened(x_[c]), to)


@loop
def _combine_back(  # type: ignore[no-untyped-def]
    start,
    stop,
    x,
    of_b,
    of_h,
    of_t,
    rows,
    by_head,
    inside,
    read,
    told,
    decays,
    kept,
    spans,
    delta,
    D,
    dx,
    ddelta,
    dg,
    dD,
):
    """dx, dΔ and dD, and dg of spans in the chunk, from its start to t ≥ r, from s < r to its end, and of the whole."""
    _, G, N, R, C, P = rows.shape
    T = dx.shape[1]
    begun, ended = np.empty((R, C), D.dtype), np.empty((R, C), D.dtype)
    dv, dskip = np.empty(P, D.dtype), np.empty(R * P, D.dtype)
    for item in range(start, stop):
        b, group, n = item // (G * N), item // N % G, item % N
        steps = min(C, T - n * C)
        dskip[:] = 0
        for t in range(steps):
            for r in range(R):
                h = group * R + r
                v_, dy_, inside_ = rows[b, group, n, r, t], by_head[b, group, n, r, t], inside[b, group, n, r, t]
                read_, told_ = read[b, group, n, t, r * P : r * P + P], told[b, group, n, t, r * P : r * P + P]
                from_start, to_end = decays[0, b, group, n, r, t], decays[1, b, group, n, r, t]
                to, D_, dskip_, step = dx[b, n * C + t, h], D[h], dskip[r * P : r * P + P], delta[b, h, n * C + t]
                at = b * of_b + h * of_h + (n * C + t) * of_t
                x_ = x[at : at + P]
                asked = from_start - from_start
                wrote, met = asked, asked
                for c in range(P):
                    dv[c] = widened(inside_[c]) + to_end * widened(told_[c])
                for c in range(P):
                    met += dv[c] * widened(x_[c])
                for c in range(P):
                    to[c] = narrowed(step * dv[c] + D_[c] * widened(dy_[c]), to)
                for c in range(P):
                    dskip_[c] += widened(dy_[c]) * widened(x_[c])
                for c in range(P):
                    wrote += widened(told_[c]) * widened(v_[c])
                    asked += widened(dy_[c]) * widened(read_[c])
                begun[r, t], ended[r, t], ddelta[b, h, n * C + t] = from_start * asked, to_end * wrote, met
        for r in range(R):
            h, total = group * R + r, kept[b, group, n, r]
            dD[b, group, n, r] = dskip[r * P : r * P + P]
            for t in range(steps):
                dg[b, h, n * C + t] = total + spans[b, group, n, r, t]
                total += ended[r, t]
            total = kept[b, group, n, r] * 0
            for i in range(steps):
                t = steps - 1 - i
                total += begun[r, t]
                dg[b, h, n * C + t] += total
