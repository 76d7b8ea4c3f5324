"""Chunked linear attention with a decay per head or none, from the first step to the last in one loop.

Within a chunk, with D_t = e^{b_t}, E_s = e^{b_C − b_s}, Γ_ts = e^{b_t − b_s} for s ≤ t and S the state before it (see
`zoo.ops.linear_attention.chunked`),

    P = (Q Kᵀ) ⊙ Γ,    O = D Q S + P V,    S ← e^{b_C} S + Kᵀ E V

and backward, with G the gradient of the state behind it,

    dP = (dO Vᵀ) ⊙ Γ,    dQ = D dO Sᵀ + dP K,    dK = E V Gᵀ + dPᵀ Q,    dV = E K G + Pᵀ dO,    G ← e^{b_C} G + Qᵀ D dO.

Products are those of `zoo.ops.cpu.matmul`; what is between them stays in the cache, and only inputs, outputs and the
states before chunks pass through memory. b_t gains what is read at t and loses what is written there; what both share
cancels in float32.

Heads of v that share a head of q and k are worked on together: they share Q Kᵀ, and their dQ and dK are added up.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu import matmul, matrices
from zoo.ops.cpu.bfloat16 import Rows, empty_rows, rows
from zoo.ops.cpu.jit import called, exp, loop
from zoo.ops.cpu.threads import once_differentiable, run
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
    """Heads of v to a head of q and k."""
    fades: bool


def sizes_of(q: Tensor, v: Tensor, g: Tensor | None) -> Sizes:
    (H, T, V), (G, K) = v.shape[1:], q.shape[1::2]
    return Sizes(min(CHUNK, matmul.padded(T)), matmul.padded(K), matmul.padded(V), H // G, g is not None)


class Inputs(NamedTuple):
    """q, k, v and log decays; or gradients."""

    q: Rows
    k: Rows
    v: Rows
    g: Tensor


class TiledLinearAttention(torch.autograd.Function):
    """o (B, H, T, V) and the last S, from q and k (B, G, T, K), v, log decays (B, H, T) or none, and S (B, H, K, V); q,
    k, v and o in the dtype of products.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, S: Tensor) -> tuple[Tensor, Tensor]:
        (B, H, K, V), T, ctx.sizes = S.shape, v.shape[2], sizes_of(q, v, g)
        g = S.new_zeros(B, H, T) if g is None else g.contiguous()
        before, o, last = v.new_empty(B, H, -(-T // ctx.sizes.C), K, V), empty_rows(v), S.new_empty(S.shape)
        inputs = Inputs(rows(q), rows(k), rows(v), g)
        run(_forward, B * q.shape[1], ctx.sizes, inputs, S, before, rows(o), last)
        ctx.save_for_backward(q, k, v, g, before)
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_S: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, before = ctx.saved_tensors
        d_q, d_k, d_v, d_g, first = *map(empty_rows, (q, k, v)), torch.empty_like(g), d_S.new_empty(d_S.shape)
        inputs, gradients = Inputs(rows(q), rows(k), rows(v), g), Inputs(rows(d_q), rows(d_k), rows(d_v), d_g)
        run(_backward, len(q) * q.shape[1], ctx.sizes, inputs, d_S, before, rows(d_o), gradients, first)
        return d_q, d_k, d_v, d_g if ctx.sizes.fades else None, first


def linear_attention(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, S: Tensor) -> tuple[Tensor, Tensor]:
    """`chunked.chunked` for any T. Heads of v that share keys are parted where threads would be left without work."""
    (B, G), sharing = q.shape[:2], v.shape[1] // q.shape[1]
    parts = next((n for n in range(1, sharing) if sharing % n == 0 and B * G * n >= torch.get_num_threads()), sharing)
    if parts > 1:
        q, k = (x.repeat_interleave(parts, dim=1) for x in (q, k))
    o, last = TiledLinearAttention.apply(q, k, v, g, S)
    return o, last


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
def renew(x, own):  # type: ignore[no-untyped-def]
    """Of a chunk, zeros behind the last step; whether they are others than before."""
    changed = False
    for t in range(len(own)):
        now = x[t] if t < len(x) else own.dtype.type(0)
        changed |= own[t] != now
        own[t] = now
    return changed


@called
def set_decays(x, by_key, d):  # type: ignore[no-untyped-def]
    """From log decays x; those that stay need no new exponentials. Γ is at [t, s], or `by_key` at [s, t]."""
    if renew(x, d.own):
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
def decays_backward(w, total, to):  # type: ignore[no-untyped-def]
    """Of log decays, from a state's own share: one at r is in all that is `read` from r on, and not in what is
    `written` from r on, but for `spans`, which the state behind the chunk holds."""
    C = len(w.read)
    for s in range(C):
        total += w.spans[s]
    for i in range(C):
        t = C - 1 - i
        total += w.read[t] - w.written[t] - w.spans[t]
        if t < len(to):
            to[t] = total


_forward_work = workspace(
    products="C K: Q keys keys_left keys_right; C V: values decayed values_right; K V: state state_right; C C: pairs",
    states=f"{DECAYS}; heads K V: S; C C: scores; C V: out; C: span",
)


@loop
def _forward(start, stop, sizes, inputs, S, before, o, last):  # type: ignore[no-untyped-def]
    """Work items are heads of q and k."""
    C, K, V, heads = sizes.C, sizes.K, sizes.V, sizes.heads
    w, setup = _forward_work(sizes, before, S), matmul.enter(before)
    for item in range(start, stop):
        b, shared = item // inputs.q.H, item % inputs.q.H
        h = shared * heads
        for r in range(heads):
            matrices.load_matrix(S[b, h + r], matrices.row_of(w.S, r, K * V), V)
        w.own[:] = np.nan
        for t in range(0, inputs.q.T, C):
            matrices.load_rows(inputs.q, b, shared, t, w.Q, K, C)
            matrices.load_rows(inputs.k, b, shared, t, w.keys, K, C)
            matmul.product(w.Q, matmul.transpose_right(w.keys, w.keys_right, C, K), w.scores, C, C, K, False)
            matmul.transpose_left(matmul.packed_pairs(w.keys, w.keys_right, C, K), w.keys_left, C, K)
            for r in range(heads):
                _forward_head(w, sizes, inputs, before, o, b, h + r, t)
        for r in range(heads):
            matrices.store_matrix(matrices.row_of(w.S, r, K * V), V, last[b, h + r])
    matmul.leave(setup, before)


@called
def _forward_head(w, sizes, inputs, before, o, b, h, t):  # type: ignore[no-untyped-def]
    """A chunk of a head: o, and S behind it."""
    C, K, V, r = sizes.C, sizes.K, sizes.V, h % sizes.heads
    S, d = matrices.row_of(w.S, r, K * V), decays_of(w, r, C)
    matrices.load_rows(inputs.v, b, h, t, w.values, V, C)
    set_decays(inputs.g[b, h, t:], False, d)
    state = matmul.rounded(S, w.state)
    matrices.store_matrix(state, V, before[b, h, t // C])
    matmul.product(w.Q, matmul.packed_pairs(state, w.state_right, K, V), w.out, C, V, K, False)
    if sizes.fades:
        matrices.scale_rows(w.out, d.start, C, V)
    matrices.hadamard(w.scores, d.weights, w.pairs)
    values = matmul.packed_pairs(w.values, w.values_right, C, V)
    matmul.product(w.pairs, values, w.out, C, V, C, True)
    matrices.store_rows(w.out, V, o, b, h, t)
    if sizes.fades:
        matrices.scale_into(w.values, d.end, C, V, w.decayed)
        values = matmul.packed_pairs(w.decayed, w.values_right, C, V)
        matrices.scale(S, d.start[C - 1])
    matmul.product(w.keys_left, values, S, K, V, C, True)


_backward_work = workspace(
    products="C K: Q Q_right Q_transposed keys keys_right; C V: values slopes slopes_right slopes_transposed; "
    "K V: state after state_transposed; C C: pairs d_pairs",
    states=f"{DECAYS}; heads K V: G; C K: d_q d_k part; C V: by_value; C C: scores d_scores part_scores; "
    "C: span read written spans",
)


@loop
def _backward(start, stop, sizes, inputs, d_S, before, d_o, gradients, first):  # type: ignore[no-untyped-def]
    C, K, V, heads = sizes.C, sizes.K, sizes.V, sizes.heads
    w, setup = _backward_work(sizes, before, d_S), matmul.enter(before)
    for item in range(start, stop):
        b, shared = item // inputs.q.H, item % inputs.q.H
        h = shared * heads
        for r in range(heads):
            matrices.load_matrix(d_S[b, h + r], matrices.row_of(w.G, r, K * V), V)
        w.own[:] = np.nan
        for t in range(C * (before.shape[2] - 1), -1, -C):
            matrices.load_rows(inputs.q, b, shared, t, w.Q, K, -C)
            matrices.load_rows(inputs.k, b, shared, t, w.keys, K, -C)
            queries = matmul.transpose_right(w.Q, w.Q_transposed, C, K)
            matmul.product(w.keys, queries, w.scores, C, C, K, False)  # [s, t]
            Q, keys = matmul.packed_pairs(w.Q, w.Q_right, C, K), matmul.packed_pairs(w.keys, w.keys_right, C, K)
            matmul.transpose_left(Q, w.Q_transposed, C, K)
            for r in range(heads):
                _backward_head(w, sizes, inputs, before, d_o, gradients, b, h + r, t)
            d_pairs = matmul.rounded(w.d_scores, w.d_pairs)
            matmul.product(d_pairs, Q, w.d_k, C, K, C, True)
            matmul.transpose_left(matmul.pack_pairs(d_pairs, w.pairs, C, C), w.d_pairs, C, C)
            matmul.product(w.d_pairs, keys, w.d_q, C, K, C, True)
            matrices.store_rows(w.d_q, K, gradients.q, b, shared, t)
            matrices.store_rows(w.d_k, K, gradients.k, b, shared, t)
        for r in range(heads):
            matrices.store_matrix(matrices.row_of(w.G, r, K * V), V, first[b, h + r])
    matmul.leave(setup, before)


@called
def _backward_head(w, sizes, inputs, before, d_o, gradients, b, h, t):  # type: ignore[no-untyped-def]
    """A chunk of a head: dV, its part of dP, dQ and dK, gradients of log decays, and G before it."""
    C, K, V, r = sizes.C, sizes.K, sizes.V, h % sizes.heads
    G, d = matrices.row_of(w.G, r, K * V), decays_of(w, r, C)
    matrices.load_rows(inputs.v, b, h, t, w.values, V, -C)
    matrices.load_rows(d_o, b, h, t, w.slopes, V, -C)
    matrices.load_matrix(before[b, h, t // C], w.state, V)
    set_decays(inputs.g[b, h, t:], True, d)
    after = matmul.rounded(G, w.after)
    _pairs_backward(w, sizes, d, r)
    # dV
    matmul.product(w.keys, matmul.packed_pairs(after, w.state_transposed, K, V), w.by_value, C, V, K, False)
    if sizes.fades:
        matrices.scale_rows(w.by_value, d.end, C, V)
    slopes = matmul.packed_pairs(w.slopes, w.slopes_right, C, V)
    matmul.product(w.pairs, slopes, w.by_value, C, V, C, True)
    matrices.store_rows(w.by_value, V, gradients.v, b, h, t)
    S = matmul.transpose_right(after, w.state_transposed, K, V)
    _state_backward(w, sizes, w.values, S, d.end, w.keys, w.spans, w.d_k, r)
    S = matmul.transpose_right(w.state, w.state_transposed, K, V)
    _state_backward(w, sizes, w.slopes, S, d.start, w.Q, w.read, w.d_q, r)
    if sizes.fades:
        total = matrices.inner(w.state, G, G.dtype.type(0))
        decays_backward(w, d.start[C - 1] * total, gradients.g[b, h, t:])
        matrices.scale_into(w.slopes, d.start, C, V, w.slopes_transposed)
        slopes = matmul.packed_pairs(w.slopes_transposed, w.slopes_right, C, V)
        matrices.scale(G, d.start[C - 1])
    matmul.product(w.Q_transposed, slopes, G, K, V, C, True)


@called
def _pairs_backward(w, sizes, d, r):  # type: ignore[no-untyped-def]
    """dP at [s, t], on top of that of heads before; P; and what Γ says of log decays: gained at t, lost at s."""
    C, V = sizes.C, sizes.V
    d_scores = w.d_scores if r == 0 else w.part_scores
    matmul.product(w.values, matmul.transpose_right(w.slopes, w.slopes_transposed, C, V), d_scores, C, C, V, False)
    for i in range(C * C):
        d_scores[i] *= d.weights[i]
    if sizes.fades:
        w.read[:] = 0
        w.spans[:] = 0
        for s in range(C):
            row, slope, total = w.scores[s * C : s * C + C], d_scores[s * C : s * C + C], w.spans.dtype.type(0)
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
def _state_backward(w, sizes, x, S, decays, of, log, to, r):  # type: ignore[no-untyped-def]
    """What the transpose of a state gives, X Sᵀ times decays, on top of that of heads before; and of log decays its
    products with rows `of`."""
    C, K, part = sizes.C, sizes.K, to if r == 0 else w.part
    matmul.product(x, S, part, C, K, sizes.V, False)
    if sizes.fades:
        matrices.scale_rows(part, decays, C, K)
        matrices.dots(of, part, C, K, log)
    if r > 0:
        matrices.add(part, to)
