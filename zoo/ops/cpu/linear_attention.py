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

from zoo.ops.cpu import matmul, matrices
from zoo.ops.cpu.bfloat16 import Rows, dense_rows, empty_rows, narrowed, number, offset, rows, widened
from zoo.ops.cpu.jit import called, copy, exp, loop
from zoo.ops.cpu.threads import run
from zoo.ops.cpu.workspace import workspace

CHUNK = 64

LOWEST = -1000.0
"""e^−1000 is 0 in float64 too: a finite −inf, of pairs that are masked."""


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
    """o (B, H, T, V) and the last S and z, from q and k (B, G, T, K), v, log decays and a floor (B, H, T) or none, S
    (B, H, K, V) and z (B, H, K); q, k, v and o in the dtype of products. `eps` is ε of a mean, or None for sums.
    """

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
        eps: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (B, H, T, V), (G, K), mean = v.shape, q.shape[1::2], eps is not None
        C, heads, least = min(CHUNK, matmul.padded(T)), heads_together(B, G, H // G), number(eps or 0, S.dtype)
        ctx.sizes = Sizes(C, matmul.padded(K), matmul.padded(V), heads, H // G, g is not None, mean, least)
        q, k, v = dense_rows(q, k, v)
        g, floor = (S.new_zeros(B, H, T) if x is None else x.contiguous() for x in (g, floor))
        inputs, first = Inputs(rows(q), rows(k), rows(v), g, floor), State(S.contiguous(), z.contiguous())
        N = -(-T // C)
        before, last = State(v.new_empty(B, H, N, K, V), z.new_empty(B, H, N, K)), State(*map(torch.empty_like, first))
        o, d = empty_rows(v, H, V), S.new_empty(B, H, T)
        run(_forward, B * H // heads, ctx.sizes, inputs, first, before, Output(rows(o), rows(o), d), last)
        ctx.save_for_backward(q, k, v, g, floor, *before, *((o, d) if mean else (v, g)))
        return o, *last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_S: Tensor, d_z: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, floor, S, z, o, d = ctx.saved_tensors
        (B, H, _, V), (G, K), sizes, (d_o,) = v.shape, q.shape[1::2], ctx.sizes, dense_rows(d_o)
        parts = H // (G * sizes.heads)
        d_q, d_k = (empty_rows(q if parts == 1 else g[..., None], G * parts, K) for _ in "qk")
        d_v, d_g = empty_rows(v, H, V), torch.empty_like(g)
        inputs, after = Inputs(rows(q), rows(k), rows(v), g, floor), State(d_S.contiguous(), d_z.contiguous())
        first = State(*map(torch.empty_like, after))
        upstream, gradients = Output(rows(o), rows(d_o), d), Inputs(rows(d_q), rows(d_k), rows(d_v), d_g, floor)
        run(_backward, B * G * parts, sizes, inputs, after, State(S, z), upstream, gradients, first)
        if parts > 1:
            d_q, d_k = (x.unflatten(1, (G, parts)).sum(2).to(q.dtype) for x in (d_q, d_k))
        return d_q, d_k, d_v, d_g if sizes.fades else None, None, *first, None


weighted_mean = TiledLinearAttention.apply


def linear_attention(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, S: Tensor) -> tuple[Tensor, Tensor]:
    """Sums alone: o and the last S."""
    o, last, _ = TiledLinearAttention.apply(q, k, v, g, None, S, S.new_zeros(S.shape[:3]), None)
    return o, last


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


DECAYS = "heads C: own start end; heads C C: weights"
"""In a workspace, beside `span`. Where `own` is NaN they are to be set."""


@called
def decays_of(w, r, C):  # type: ignore[no-untyped-def]
    """Those of head r."""
    own, start, end = matrices.row_of(w.own, r, C), matrices.row_of(w.start, r, C), matrices.row_of(w.end, r, C)
    return Decays(own, start, end, matrices.row_of(w.weights, r, C * C), w.span)


@called
def renew(x, steps, own):  # type: ignore[no-untyped-def]
    """Of a chunk, zeros behind the last step; whether they are others than before."""
    changed = False
    for t in range(len(own)):
        now = x[t] if t < steps else own.dtype.type(0)
        changed |= own[t] != now
        own[t] = now
    return changed


@called
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


@called
def decays_backward(w, total, to, steps):  # type: ignore[no-untyped-def]
    """Of log decays, from a state's own share: one at r is in all that is `read` from r on, and not in what is
    `written` from r on, but for `spans`, which the state behind the chunk holds."""
    C = len(w.read)
    for s in range(C):
        total += w.spans[s]
    for i in range(C):
        t = C - 1 - i
        total += w.read[t] - w.written[t] - w.spans[t]
        if t < steps:
            to[t] = total


_forward_work = workspace(
    products="C K: Q keys keys_left keys_right; C V: values decayed values_right; K V: state state_right; C C: pairs",
    states=f"{DECAYS}; heads K V: S; heads K: z; C C: scores; C V: out; C: totals span",
)


@loop
def _forward(start, stop, sizes, inputs, first, before, output, last):  # type: ignore[no-untyped-def]
    """Work items are heads that are worked on together."""
    C, K, V, heads = sizes.C, sizes.K, sizes.V, sizes.heads
    (_, H, T), N, depth = inputs.g.shape, before.S.shape[2], first.S.shape[2]
    w, setup = _forward_work(sizes, before.S, first.S), matmul.enter(before.S)
    for item in range(start, stop):
        b, h = item * heads // H, item * heads % H
        for r in range(heads):
            matrices.load_matrix(first.S[b, h + r], matrices.row_of(w.S, r, K * V), V)
            copy(first.z[b, h + r], matrices.row_of(w.z, r, K))
        w.own[:] = np.nan
        for n in range(N):
            t, shared = n * C, h // sizes.sharing
            steps = min(C, T - t)
            matrices.load_rows(inputs.q, offset(inputs.q, b, shared, t), steps, depth, w.Q, K, C)
            matrices.load_rows(inputs.k, offset(inputs.k, b, shared, t), steps, depth, w.keys, K, C)
            matmul.product(w.Q, matmul.transpose_right(w.keys, w.keys_right, C, K), w.scores, C, C, K, False)
            matmul.transpose_left(matmul.packed_pairs(w.keys, w.keys_right, C, K), w.keys_left, C, K)
            for r in range(heads):
                _forward_head(w, sizes, inputs, before, output, b, h + r, r, n)
        for r in range(heads):
            matrices.store_matrix(matrices.row_of(w.S, r, K * V), V, last.S[b, h + r])
            copy(matrices.row_of(w.z, r, K), last.z[b, h + r])
    matmul.leave(setup, before.S)


@called
def _forward_head(w, sizes, inputs, before, output, b, h, r, n):  # type: ignore[no-untyped-def]
    """A chunk of a head: o, and S behind it."""
    C, K, V, t, width = sizes.C, sizes.K, sizes.V, n * sizes.C, before.S.shape[4]
    steps, S, d = min(C, inputs.g.shape[2] - t), matrices.row_of(w.S, r, K * V), decays_of(w, r, C)
    matrices.load_rows(inputs.v, offset(inputs.v, b, h, t), steps, width, w.values, V, C)
    set_decays(inputs.g[b, h, t:], steps, False, d)
    state = matmul.rounded(S, w.state)
    matrices.store_matrix(state, V, before.S[b, h, n])
    matmul.product(w.Q, matmul.packed_pairs(state, w.state_right, K, V), w.out, C, V, K, False)
    if sizes.fades:
        matrices.scale_rows(w.out, d.start, C, V)
    matrices.hadamard(w.scores, d.weights, w.pairs)
    values = matmul.packed_pairs(w.values, w.values_right, C, V)
    matmul.product(w.pairs, values, w.out, C, V, C, True)
    if sizes.mean:
        z = matrices.row_of(w.z, r, K)
        copy(z, before.z[b, h, n])
        _divide(w, d, z, sizes, inputs.floor[b, h, t:], output.d[b, h, t:], steps)
    matrices.store_rows(w.out, steps, width, V, S.dtype.type(1), output.o, offset(output.o, b, h, t))
    if sizes.fades:
        matrices.scale_into(w.values, d.end, C, V, w.decayed)
        values = matmul.packed_pairs(w.decayed, w.values_right, C, V)
        matrices.scale(S, d.start[C - 1])
    matmul.product(w.keys_left, values, S, K, V, C, True)


@called
def _divide(w, d, z, sizes, floor, sums, steps):  # type: ignore[no-untyped-def]
    """O by the sums d, which are kept; and z behind the chunk."""
    C, K, totals, zero, one = sizes.C, sizes.K, w.totals, z.dtype.type(0), z.dtype.type(1)
    for t in range(steps):
        row, weights = w.scores[t * C : t * C + C], d.weights[t * C : t * C + C]
        total = d.start[t] * matrices.inner(matrices.row_of(w.Q, t, K), z, zero)
        for s in range(C):
            total += row[s] * weights[s]
        sums[t], totals[t] = total, one / (max(abs(total), floor[t]) + sizes.eps)
    matrices.scale_rows(w.out, totals, steps, sizes.V)
    matrices.scale(z, d.start[C - 1])
    matrices.add_rows(w.keys, d.end, C, K, z)


_backward_work = workspace(
    products="C K: Q Q_right Q_transposed keys keys_right; C V: values slopes slopes_right slopes_transposed; "
    "K V: state after state_transposed; C C: pairs d_pairs",
    states=f"{DECAYS}; heads K V: G; heads K: G_z; C K: d_q d_k part; C V: by_value; C C: scores d_scores part_scores; "
    "K: z; C: span d_totals read written spans ones",
)


@loop
def _backward(start, stop, sizes, inputs, after, before, upstream, gradients, first):  # type: ignore[no-untyped-def]
    C, K, V, heads, one = sizes.C, sizes.K, sizes.V, sizes.heads, after.S.dtype.type(1)
    (_, H, T), N, depth = inputs.g.shape, before.S.shape[2], after.S.shape[2]
    w, setup = _backward_work(sizes, before.S, after.S), matmul.enter(before.S)
    w.ones[:] = 1
    for item in range(start, stop):
        b, h = item * heads // H, item * heads % H
        shared, part = h // sizes.sharing, h // heads
        for r in range(heads):
            matrices.load_matrix(after.S[b, h + r], matrices.row_of(w.G, r, K * V), V)
            copy(after.z[b, h + r], matrices.row_of(w.G_z, r, K))
        w.own[:] = np.nan
        for back in range(N):
            n = N - 1 - back
            t = n * C
            steps = min(C, T - t)
            matrices.load_rows(inputs.q, offset(inputs.q, b, shared, t), steps, depth, w.Q, K, -C)
            matrices.load_rows(inputs.k, offset(inputs.k, b, shared, t), steps, depth, w.keys, K, -C)
            matmul.product(
                w.keys, matmul.transpose_right(w.Q, w.Q_transposed, C, K), w.scores, C, C, K, False
            )  # [s, t]
            Q, keys = matmul.packed_pairs(w.Q, w.Q_right, C, K), matmul.packed_pairs(w.keys, w.keys_right, C, K)
            matmul.transpose_left(Q, w.Q_transposed, C, K)
            for r in range(heads):
                _backward_head(w, sizes, inputs, before, upstream, gradients, b, h + r, r, n)
            d_pairs = matmul.rounded(w.d_scores, w.d_pairs)
            matmul.product(d_pairs, Q, w.d_k, C, K, C, True)
            matmul.transpose_left(matmul.pack_pairs(d_pairs, w.pairs, C, C), w.d_pairs, C, C)
            matmul.product(w.d_pairs, keys, w.d_q, C, K, C, True)
            matrices.store_rows(w.d_q, steps, depth, K, one, gradients.q, offset(gradients.q, b, part, t))
            matrices.store_rows(w.d_k, steps, depth, K, one, gradients.k, offset(gradients.k, b, part, t))
        for r in range(heads):
            matrices.store_matrix(matrices.row_of(w.G, r, K * V), V, first.S[b, h + r])
            copy(matrices.row_of(w.G_z, r, K), first.z[b, h + r])
    matmul.leave(setup, before.S)


@called
def _backward_head(w, sizes, inputs, before, upstream, gradients, b, h, r, n):  # type: ignore[no-untyped-def]
    """A chunk of a head: dV, its part of dP, dQ and dK, gradients of log decays, and G before it."""
    C, K, V, t, width = sizes.C, sizes.K, sizes.V, n * sizes.C, before.S.shape[4]
    steps, d = min(C, inputs.g.shape[2] - t), decays_of(w, r, C)
    G, G_z = matrices.row_of(w.G, r, K * V), matrices.row_of(w.G_z, r, K)
    matrices.load_rows(inputs.v, offset(inputs.v, b, h, t), steps, width, w.values, V, -C)
    matrices.load_matrix(before.S[b, h, n], w.state, V)
    if sizes.mean:
        copy(before.z[b, h, n], w.z)
    _load_slopes(w, sizes, inputs.floor[b, h, t:], upstream, b, h, t, steps, width)
    set_decays(inputs.g[b, h, t:], steps, True, d)
    after = matmul.rounded(G, w.after)
    _pairs_backward(w, sizes, d, r)
    # dV
    matmul.product(w.keys, matmul.packed_pairs(after, w.state_transposed, K, V), w.by_value, C, V, K, False)
    if sizes.fades:
        matrices.scale_rows(w.by_value, d.end, C, V)
    slopes = matmul.packed_pairs(w.slopes, w.slopes_right, C, V)
    matmul.product(w.pairs, slopes, w.by_value, C, V, C, True)
    matrices.store_rows(w.by_value, steps, width, V, G.dtype.type(1), gradients.v, offset(gradients.v, b, h, t))
    S = matmul.transpose_right(after, w.state_transposed, K, V)
    _state_backward(w, sizes, w.values, S, G_z, w.ones, d.end, w.keys, w.spans, w.d_k, r)
    S = matmul.transpose_right(w.state, w.state_transposed, K, V)
    _state_backward(w, sizes, w.slopes, S, w.z, w.d_totals, d.start, w.Q, w.read, w.d_q, r)
    if sizes.fades:
        total = matrices.inner(w.z, G_z, matrices.inner(w.state, G, G.dtype.type(0)))
        decays_backward(w, d.start[C - 1] * total, gradients.g[b, h, t:], steps)
        matrices.scale_into(w.slopes, d.start, C, V, w.slopes_transposed)
        slopes = matmul.packed_pairs(w.slopes_transposed, w.slopes_right, C, V)
        matrices.scale(G, d.start[C - 1])
    matmul.product(w.Q_transposed, slopes, G, K, V, C, True)
    if sizes.mean:
        for s in range(C):
            w.d_totals[s] *= d.start[s]
        matrices.scale(G_z, d.start[C - 1])
        matrices.add_rows(w.Q, w.d_totals, C, K, G_z)


@called
def _load_slopes(w, sizes, floor, upstream, b, h, first, steps, width):  # type: ignore[no-untyped-def]
    """dO, of what is divided; and of d."""
    V, zero, one = sizes.V, w.d_totals.dtype.type(0), w.d_totals.dtype.type(1)
    w.d_totals[:] = 0
    w.slopes[steps * V :] = 0
    for t in range(steps):
        at, factor = offset(upstream.d_o, b, h, first + t), one
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


@called
def _pairs_backward(w, sizes, d, r):  # type: ignore[no-untyped-def]
    """dP at [s, t], on top of that of heads before; P; and what Γ says of log decays: gained at t, lost at s."""
    C, V, zero = sizes.C, sizes.V, w.spans.dtype.type(0)
    d_scores = w.d_scores if r == 0 else w.part_scores
    matmul.product(w.values, matmul.transpose_right(w.slopes, w.slopes_transposed, C, V), d_scores, C, C, V, False)
    for s in range(C):
        row, weights = d_scores[s * C : s * C + C], d.weights[s * C : s * C + C]
        for t in range(C):
            row[t] = (row[t] + w.d_totals[t]) * weights[t]
    if sizes.fades:
        w.read[:] = 0
        w.spans[:] = 0
        for s in range(C):
            row, slope, total = w.scores[s * C : s * C + C], d_scores[s * C : s * C + C], zero
            for t in range(C):
                d.span[t] = row[t] * slope[t]
                w.read[t] += d.span[t]
            for t in range(C):
                total += d.span[t]
            w.written[s] = total
    if r > 0:
        matrices.add(d_scores, w.d_scores)
    matrices.hadamard(w.scores, d.weights, w.pairs)


@called
def _state_backward(w, sizes, x, S, z, factors, decays, of, log, to, r):  # type: ignore[no-untyped-def]
    """What the transpose of a state gives, (X Sᵀ + factors zᵀ) times decays, on top of that of heads before; and of log
    decays its products with rows `of`."""
    C, K, part = sizes.C, sizes.K, to if r == 0 else w.part
    matmul.product(x, S, part, C, K, sizes.V, False)
    if sizes.mean:
        for t in range(C):
            row, factor = part[t * K : t * K + K], factors[t]
            for i in range(K):
                row[i] += factor * z[i]
    if sizes.fades:
        matrices.scale_rows(part, decays, C, K)
        matrices.dots(of, part, C, K, log)
    if r > 0:
        matrices.add(part, to)
