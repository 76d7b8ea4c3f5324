"""Chunked linear attention with a decay per head or none, from the first step to the last in one loop.

Within a chunk, with D_t = e^{b_t}, E_s = e^{b_C − b_s}, Γ_ts = e^{b_t − b_s} for s ≤ t and S the state before it (see
`zoo.ops.linear_attention.chunked`),

    P = (Q Kᵀ) ⊙ Γ,    O = D Q S + P V,    S ← e^{b_C} S + Kᵀ E V

and backward, with G the gradient of the state behind it,

    dP = (dO Vᵀ) ⊙ Γ,    dQ = D dO Sᵀ + dP K,    dK = E V Gᵀ + dPᵀ Q,    dV = E K G + Pᵀ dO,    G ← e^{b_C} G + Qᵀ D dO.

A mean divides O_t by max(|d_t|, floor_t) + ε, where d_t is the same sum of ones instead of values: another column of V,
which stands apart as z beside S. Products are those of `zoo.ops.cpu.matmul`; what is between them stays in the cache,
and only inputs, outputs and the states before chunks pass through memory. b_t gains what is read at t and loses what is
written there; what both share cancels in float32.

Heads of v that share a head of q and k are worked on together: they share Q Kᵀ, and their dQ and dK are added up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import Rows, narrowed, offset, rows, widened
from zoo.ops.cpu.jit import exp, inlined, loop
from zoo.ops.cpu.matmul import (
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
from zoo.ops.cpu.matrices import (
    add_rows,
    dots,
    hadamard,
    load_matrix,
    load_rows,
    scale_into,
    scale_rows,
    store_matrix,
    store_rows,
)
from zoo.ops.cpu.threads import run
from zoo.ops.cpu.workspace import workspace

CHUNK = 64

LOWEST = -1000.0
"""e^−1000 is 0 in float64 too: a finite −inf, of pairs that are masked."""


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, S: Tensor, scale: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """o (B, H, T, V), times `scale`, and the last S, from q and k (B, G, T, K), v, a decay (B, H, T) or none and S
    (B, H, K, V); products in `dtype`.
    """
    q, k, values = (x.to(dtype) for x in (q, k, v))
    o, S, _ = TiledLinearAttention.apply(q, k, values, g, None, S, S.new_zeros(S.shape[:3]), scale, None)
    return o.to(v.dtype), S


def weighted_mean(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    floor: Tensor | None,
    S: Tensor | None,
    z: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """o, the last S and the last z; see `zoo.ops.linear_attention.weighted_mean`."""
    (B, H, _, V), K, wide = v.shape, q.shape[3], torch.promote_types(dtype, torch.float32)
    S = v.new_zeros(B, H, K, V, dtype=wide) if S is None else S
    z = S.new_zeros(B, H, K) if z is None else z
    return TiledLinearAttention.apply(*(x.to(dtype) for x in (q, k, v)), g, floor, S, z, 1.0, eps)


class Sizes(NamedTuple):
    """C, K and V of a chunk, padded, and what else all of a call share."""

    C: int
    K: int
    V: int
    heads: int
    """Of v, that are worked on together."""
    sharing: int
    """Heads of v to a head of q and k."""
    fades: bool
    mean: bool
    scale: np.floating
    eps: np.floating


class Inputs(NamedTuple):
    """q, k, v, log decays and the floor of a mean; or gradients."""

    q: Rows
    k: Rows
    v: Rows
    g: Tensor
    floor: Tensor


class State(NamedTuple):
    """S and z of every head; or of every chunk what they are before it."""

    S: Tensor
    z: Tensor


class Output(NamedTuple):
    """o, its gradient in the backward pass, and d."""

    o: Rows
    d_o: Rows
    d: Tensor


class TiledLinearAttention(torch.autograd.Function):
    """o in v's dtype, which is that of products, and the last S and z. `eps` is ε of a mean, or None for sums."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        floor: Tensor | None,
        S: Tensor,
        z: Tensor,
        scale: float,
        eps: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (B, H, T, V), (G, K) = v.shape, q.shape[1::2]
        C = min(CHUNK, padded(T))
        q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
        heads = heads_together(B, G, H // G)
        numbers = S.new_tensor([scale, eps or 0]).numpy()
        ctx.sizes = Sizes(C, padded(K), padded(V), heads, H // G, g is not None, eps is not None, *numbers)
        g, floor = (S.new_zeros(B, H, T) if x is None else x.contiguous() for x in (g, floor))
        inputs, first = Inputs(rows(q), rows(k), rows(v), g, floor), State(S.contiguous(), z.contiguous())
        N = -(-T // C)
        before, last = State(v.new_empty(B, H, N, K, V), z.new_empty(B, H, N, K)), State(*map(torch.empty_like, first))
        o, d = v.new_empty(B, T, H, V).transpose(1, 2), S.new_empty(B, H, T)
        run(_forward, B * H // heads, ctx.sizes, inputs, first, before, Output(rows(o), rows(o), d), last)
        ctx.save_for_backward(q, k, v, g, floor, *before, *((o, d) if ctx.sizes.mean else (v, g)))
        return o, *last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_S: Tensor, d_z: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, floor, S, z, o, d = ctx.saved_tensors
        (B, H, T, V), (G, K), sizes = v.shape, q.shape[1::2], ctx.sizes
        d_o = d_o if d_o.stride(3) == 1 else d_o.contiguous()
        parts = H // (G * sizes.heads)
        like = q if parts == 1 else g
        d_q, d_k = (like.new_empty(B, T, G * parts, K).transpose(1, 2) for _ in "qk")
        d_v, d_g = v.new_empty(B, T, H, V).transpose(1, 2), torch.empty_like(g)
        inputs, after = Inputs(rows(q), rows(k), rows(v), g, floor), State(d_S.contiguous(), d_z.contiguous())
        first = State(*map(torch.empty_like, after))
        upstream, gradients = Output(rows(o), rows(d_o), d), Inputs(rows(d_q), rows(d_k), rows(d_v), d_g, floor)
        run(_backward, B * G * parts, sizes, inputs, after, State(S, z), upstream, gradients, first)
        if parts > 1:
            d_q, d_k = (x.unflatten(1, (G, parts)).sum(2).to(q.dtype) for x in (d_q, d_k))
        return d_q, d_k, d_v, d_g if sizes.fades else None, None, *first, None, None


def heads_together(B: int, G: int, sharing: int) -> int:
    """How many of the heads that share keys are worked on together: all, if there is then an item for each thread."""
    divisors = [n for n in range(sharing, 0, -1) if sharing % n == 0]
    return next((n for n in divisors if B * G * sharing // n >= torch.get_num_threads()), 1)


class Decays(NamedTuple):
    """Of a chunk of a head: log decays, D, E, Γ, and where spans are added up."""

    own: Any
    start: Any
    end: Any
    weights: Any
    span: Any


DECAYS = {"heads C": "own start end", "heads C C": "weights"}
"""In a workspace, beside `span`. Where `own` is NaN they are to be set."""


@inlined
def of_head(x, r, size):  # type: ignore[no-untyped-def]
    """Of arrays of `size` one behind the other, the one of head r."""
    return x[r * size : r * size + size]


@inlined
def decays_of(w, r, C):  # type: ignore[no-untyped-def]
    """Those of head r."""
    weights = of_head(w.weights, r, C * C)
    return Decays(of_head(w.own, r, C), of_head(w.start, r, C), of_head(w.end, r, C), weights, w.span)


@inlined
def renew(x, steps, own):  # type: ignore[no-untyped-def]
    """Of a chunk, zeros behind the last step; whether they are others than before."""
    changed = False
    for t in range(len(own)):
        now = x[t] if t < steps else own.dtype.type(0)
        changed |= own[t] != now
        own[t] = now
    return changed


@inlined
def set_decays(x, steps, by_key, d):  # type: ignore[no-untyped-def]
    """From log decays x; those that stay need no new exponentials. Γ is at [t, s], or `by_key` at [s, t]."""
    if renew(x, steps, d.own):
        C, total = len(d.own), d.own.dtype.type(0)
        for t in range(C):
            total += d.own[t]
            d.span[t] = total
        for t in range(C):
            d.start[t] = exp(d.span[t])
        d.span[:] = LOWEST
        # Each span is added up by itself, as in `chunked`.
        for i in range(C):
            now = C - 1 - i if by_key else i
            log, row = d.own[now], d.weights[now * C : now * C + C]
            if not by_key:
                for s in range(C):
                    d.span[s] += log
            d.span[now] = 0
            for j in range(C):
                row[j] = exp(d.span[j])
            if by_key:
                for t in range(C):
                    d.span[t] += log
        for s in range(C):
            d.end[s] = d.weights[s * C + C - 1 if by_key else (C - 1) * C + s]


_forward_work = workspace(
    {
        "C K": "Q keys keys_left keys_right",
        "C V": "values decayed values_right",
        "K V": "state state_right",
        "C C": "pairs",
    },
    DECAYS | {"heads K V": "S", "heads K": "z", "C C": "scores", "C V": "out", "C": "totals span"},
)


@loop
def _forward(start, stop, sizes, inputs, first, before, output, last):  # type: ignore[no-untyped-def]
    """Work items are heads that are worked on together."""
    C, K, V, heads = sizes.C, sizes.K, sizes.V, sizes.heads
    (_, H, T), N = inputs.g.shape, before.S.shape[2]
    depth, width = first.S.shape[2:]
    w, setup = _forward_work(sizes, before.S, first.S), enter(before.S)
    for item in range(start, stop):
        b, h = item * heads // H, item * heads % H
        for r in range(heads):
            load_matrix(first.S[b, h + r], width, of_head(w.S, r, K * V), V)
            of_head(w.z, r, K)[:depth] = first.z[b, h + r]
        w.own[:] = np.nan
        for n in range(N):
            t, shared = n * C, h // sizes.sharing
            steps = min(C, T - t)
            load_rows(inputs.q, offset(inputs.q, b, shared, t), steps, depth, w.Q, K, C)
            load_rows(inputs.k, offset(inputs.k, b, shared, t), steps, depth, w.keys, K, C)
            transpose_right(w.keys, w.keys_right, C, K)
            product(w.Q, w.keys_right, w.scores, C, C, K, False)
            transpose_left(packed_pairs(w.keys, w.keys_right, C, K), w.keys_left, C, K)
            for r in range(heads):
                _forward_head(w, sizes, inputs, before, output, b, h + r, r, n)
        for r in range(heads):
            store_matrix(of_head(w.S, r, K * V), width, V, last.S[b, h + r])
            last.z[b, h + r] = of_head(w.z, r, K)[:depth]
    leave(setup, before.S)


@inlined
def _forward_head(w, sizes, inputs, before, output, b, h, r, n):  # type: ignore[no-untyped-def]
    """A chunk of a head: o, and S behind it."""
    C, K, V, t, width = sizes.C, sizes.K, sizes.V, n * sizes.C, before.S.shape[4]
    steps, S, d = min(C, inputs.g.shape[2] - t), of_head(w.S, r, K * V), decays_of(w, r, C)
    load_rows(inputs.v, offset(inputs.v, b, h, t), steps, width, w.values, V, C)
    set_decays(inputs.g[b, h, t:], steps, False, d)
    state = rounded(S, w.state)
    store_matrix(state, width, V, before.S[b, h, n])
    product(w.Q, packed_pairs(state, w.state_right, K, V), w.out, C, V, K, False)
    if sizes.fades:
        scale_rows(w.out, d.start, C, V)
    hadamard(w.scores, d.weights, w.pairs)
    values = packed_pairs(w.values, w.values_right, C, V)
    product(w.pairs, values, w.out, C, V, C, True)
    if sizes.mean:
        z = of_head(w.z, r, K)
        before.z[b, h, n] = z[: before.z.shape[3]]
        _divide(w, d, z, sizes, inputs.floor[b, h, t:], output.d[b, h, t:], steps)
    store_rows(w.out, steps, width, V, sizes.scale, output.o, offset(output.o, b, h, t))
    if sizes.fades:
        scale_into(w.values, d.end, C, V, w.decayed)
        values = packed_pairs(w.decayed, w.values_right, C, V)
        kept = d.start[C - 1]
        for i in range(K * V):
            S[i] *= kept
    product(w.keys_left, values, S, K, V, C, True)


@inlined
def _divide(w, d, z, sizes, floor, sums, steps):  # type: ignore[no-untyped-def]
    """O by the sums d, which are kept; and z behind the chunk."""
    C, K, totals, one = sizes.C, sizes.K, w.totals, w.totals.dtype.type(1)
    for t in range(C):
        query, row, weights = w.Q[t * K : t * K + K], w.scores[t * C : t * C + C], d.weights[t * C : t * C + C]
        total = totals.dtype.type(0)
        for i in range(K):
            total += widened(query[i]) * z[i]
        total *= d.start[t]
        for s in range(C):
            total += row[s] * weights[s]
        totals[t] = total
    for t in range(steps):
        sums[t] = totals[t]
        totals[t] = one / (max(abs(totals[t]), floor[t]) + sizes.eps)
    scale_rows(w.out, totals, steps, sizes.V)
    for i in range(K):
        z[i] *= d.start[C - 1]
    add_rows(w.keys, d.end, C, K, z)


_backward_work = workspace(
    {
        "C K": "Q Q_right Q_transposed keys keys_right",
        "C V": "values slopes slopes_right slopes_transposed",
        "K V": "state after state_transposed",
        "C C": "pairs d_pairs",
    },
    DECAYS
    | {
        "heads K V": "G",
        "heads K": "G_z",
        "C K": "d_q d_k part",
        "C V": "by_value",
        "C C": "scores d_scores part_scores",
        "K": "z",
        "C": "span d_totals read written spans",
    },
)


@loop
def _backward(start, stop, sizes, inputs, after, before, upstream, gradients, first):  # type: ignore[no-untyped-def]
    C, K, V, heads = sizes.C, sizes.K, sizes.V, sizes.heads
    (_, H, T), N = inputs.g.shape, before.S.shape[2]
    depth, width = after.S.shape[2:]
    w, setup, one = _backward_work(sizes, before.S, after.S), enter(before.S), after.S.dtype.type(1)
    for item in range(start, stop):
        b, h = item * heads // H, item * heads % H
        shared, part = h // sizes.sharing, h // heads
        for r in range(heads):
            load_matrix(after.S[b, h + r], width, of_head(w.G, r, K * V), V)
            of_head(w.G_z, r, K)[:depth] = after.z[b, h + r]
        w.own[:] = np.nan
        for back in range(N):
            n = N - 1 - back
            t = n * C
            steps = min(C, T - t)
            load_rows(inputs.q, offset(inputs.q, b, shared, t), steps, depth, w.Q, K, -C)
            load_rows(inputs.k, offset(inputs.k, b, shared, t), steps, depth, w.keys, K, -C)
            transpose_right(w.Q, w.Q_transposed, C, K)
            product(w.keys, w.Q_transposed, w.scores, C, C, K, False)  # [s, t]
            Q, keys = packed_pairs(w.Q, w.Q_right, C, K), packed_pairs(w.keys, w.keys_right, C, K)
            transpose_left(Q, w.Q_transposed, C, K)
            for r in range(heads):
                _backward_head(w, sizes, inputs, before, upstream, gradients, b, h + r, r, n)
            d_pairs = rounded(w.d_scores, w.d_pairs)
            product(d_pairs, Q, w.d_k, C, K, C, True)
            pack_pairs(d_pairs, w.pairs, C, C)
            transpose_left(w.pairs, w.d_pairs, C, C)
            product(w.d_pairs, keys, w.d_q, C, K, C, True)
            store_rows(w.d_q, steps, depth, K, one, gradients.q, offset(gradients.q, b, part, t))
            store_rows(w.d_k, steps, depth, K, one, gradients.k, offset(gradients.k, b, part, t))
        for r in range(heads):
            store_matrix(of_head(w.G, r, K * V), width, V, first.S[b, h + r])
            first.z[b, h + r] = of_head(w.G_z, r, K)[:depth]
    leave(setup, before.S)


@inlined
def _backward_head(w, sizes, inputs, before, upstream, gradients, b, h, r, n):  # type: ignore[no-untyped-def]
    """A chunk of a head: dV, its part of dP, dQ and dK, gradients of log decays, and G before it."""
    C, K, V, t, width = sizes.C, sizes.K, sizes.V, n * sizes.C, before.S.shape[4]
    steps, d = min(C, inputs.g.shape[2] - t), decays_of(w, r, C)
    G, G_z = of_head(w.G, r, K * V), of_head(w.G_z, r, K)
    load_rows(inputs.v, offset(inputs.v, b, h, t), steps, width, w.values, V, -C)
    load_matrix(before.S[b, h, n], width, w.state, V)
    if sizes.mean:
        w.z[: before.z.shape[3]] = before.z[b, h, n]
    _load_slopes(w, sizes, inputs.floor[b, h, t:], upstream, b, h, t, steps, width)
    set_decays(inputs.g[b, h, t:], steps, True, d)
    after = rounded(G, w.after)
    _pairs_backward(w, sizes, d, r)
    # dV
    product(w.keys, packed_pairs(after, w.state_transposed, K, V), w.by_value, C, V, K, False)
    if sizes.fades:
        scale_rows(w.by_value, d.end, C, V)
    slopes = packed_pairs(w.slopes, w.slopes_right, C, V)
    product(w.pairs, slopes, w.by_value, C, V, C, True)
    store_rows(w.by_value, steps, width, V, G.dtype.type(1), gradients.v, offset(gradients.v, b, h, t))
    transpose_right(after, w.state_transposed, K, V)
    _keys_backward(w, sizes, d, G_z, r)
    transpose_right(w.state, w.state_transposed, K, V)
    _queries_backward(w, sizes, d, r)
    if sizes.fades:
        _decays_backward(w, d, G, G_z, gradients.g[b, h, t:], steps)
        scale_into(w.slopes, d.start, C, V, w.slopes_transposed)
        slopes = packed_pairs(w.slopes_transposed, w.slopes_right, C, V)
        for i in range(K * V):
            G[i] *= d.start[C - 1]
    product(w.Q_transposed, slopes, G, K, V, C, True)
    if sizes.mean:
        for s in range(C):
            w.d_totals[s] *= d.start[s]
        for i in range(K):
            G_z[i] *= d.start[C - 1]
        add_rows(w.Q, w.d_totals, C, K, G_z)


@inlined
def _load_slopes(w, sizes, floor, upstream, b, h, first, steps, width):  # type: ignore[no-untyped-def]
    """dO, of what is scaled or divided; and of d."""
    V, zero, one = sizes.V, w.d_totals.dtype.type(0), w.d_totals.dtype.type(1)
    w.d_totals[:] = 0
    w.slopes[steps * V :] = 0
    for t in range(steps):
        at, factor = offset(upstream.d_o, b, h, first + t), sizes.scale
        slope, row = upstream.d_o.memory[at : at + width], w.slopes[t * V : t * V + width]
        if sizes.mean:
            at, dot, d = offset(upstream.o, b, h, first + t), zero, upstream.d[b, h, first + t]
            o = upstream.o.memory[at : at + width]
            for c in range(width):
                dot += widened(slope[c]) * widened(o[c])
            factor = one / (max(abs(d), floor[t]) + sizes.eps)
            if abs(d) > floor[t]:
                w.d_totals[t] = -dot * factor if d > 0 else dot * factor
        for c in range(width):
            row[c] = narrowed(factor * widened(slope[c]), row)


@inlined
def _pairs_backward(w, sizes, d, r):  # type: ignore[no-untyped-def]
    """dP at [s, t], on top of that of heads before; P; and what Γ says of log decays: gained at t, lost at s."""
    C, V, zero = sizes.C, sizes.V, w.spans.dtype.type(0)
    d_scores = w.d_scores if r == 0 else w.part_scores
    transpose_right(w.slopes, w.slopes_transposed, C, V)
    product(w.values, w.slopes_transposed, d_scores, C, C, V, False)
    for s in range(C):
        row, weights = d_scores[s * C : s * C + C], d.weights[s * C : s * C + C]
        for t in range(C):
            row[t] = (row[t] + w.d_totals[t]) * weights[t]
    if sizes.fades:
        w.read[:] = 0
        for s in range(C):
            row, slope, total = w.scores[s * C : s * C + C], d_scores[s * C : s * C + C], zero
            for t in range(C):
                d.span[t] = row[t] * slope[t]
                w.read[t] += d.span[t]
            for t in range(C):
                total += d.span[t]
            w.written[s] = total
    if r > 0:
        for i in range(C * C):
            w.d_scores[i] += d_scores[i]
    hadamard(w.scores, d.weights, w.pairs)


@inlined
def _keys_backward(w, sizes, d, G_z, r):  # type: ignore[no-untyped-def]
    """E V Gᵀ, of values and the transpose of G, on top of those of heads before."""
    C, K, d_k = sizes.C, sizes.K, w.d_k if r == 0 else w.part
    product(w.values, w.state_transposed, d_k, C, K, sizes.V, False)
    if sizes.mean:
        for s in range(C):
            row = d_k[s * K : s * K + K]
            for i in range(K):
                row[i] += G_z[i]
    if sizes.fades:
        scale_rows(d_k, d.end, C, K)
        w.spans[:] = 0
        dots(w.keys, d_k, C, K, w.spans)
    if r > 0:
        for i in range(C * K):
            w.d_k[i] += d_k[i]


@inlined
def _queries_backward(w, sizes, d, r):  # type: ignore[no-untyped-def]
    """D dO Sᵀ, of the gradient of O and the transpose of S, on top of those of heads before."""
    C, K, d_q = sizes.C, sizes.K, w.d_q if r == 0 else w.part
    product(w.slopes, w.state_transposed, d_q, C, K, sizes.V, False)
    if sizes.mean:
        for t in range(C):
            row, slope = d_q[t * K : t * K + K], w.d_totals[t]
            for i in range(K):
                row[i] += slope * w.z[i]
    if sizes.fades:
        scale_rows(d_q, d.start, C, K)
        dots(w.Q, d_q, C, K, w.read)
    if r > 0:
        for i in range(C * K):
            w.d_q[i] += d_q[i]


@inlined
def _decays_backward(w, d, G, G_z, to, steps):  # type: ignore[no-untyped-def]
    """Of log decays: one at r is in all that is read from r on, and not in what is written from r on, but for G."""
    C, total = len(d.own), w.spans.dtype.type(0)
    for i in range(len(G)):
        total += widened(w.state[i]) * G[i]
    for i in range(len(G_z)):
        total += w.z[i] * G_z[i]
    total *= d.start[C - 1]
    for s in range(C):
        total += w.spans[s]
    for i in range(C):
        t = C - 1 - i
        total += w.read[t] - w.written[t] - w.spans[t]
        if t < steps:
            to[t] = total
