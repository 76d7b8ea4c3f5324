"""Chunked linear attention with a decay per channel, each head from its first step to its last in one loop.

About a step m in the middle of a chunk, with e_t the sum of log decays from m to t (negated before m),

    A_t = e^{e_t} ⊙ q_t,    B_s = e^{−e_s} ⊙ k_s,    S′ = diag(e^{b_m}) S

turn it into linear attention without a decay, o = A S′ + tril(A Bᵀ) V, and S ← diag(e^{e_C}) (S′ + Bᵀ V). With a bonus
u a step reads the state before its own decay, A_t = e^{e_{t−1}} ⊙ q_t, and the diagonal of A Bᵀ is q_t · (u ⊙ k_t).

A and B stay finite while no e is beyond `LARGEST_EXPONENT`. A chunk with stronger decays is the recurrence step by
step, with c_t = a_t and u = 1, or with a bonus c_t = 1; G is the gradient of S_t, and w = v_t · do_t:

    o_t = (c_t ⊙ q_t)ᵀ S + (q_t · (u ⊙ k_t)) v_t,    S ← diag(a_t) S + k_t v_tᵀ
    dq_t = c_t ⊙ S do_t + w u ⊙ k_t,    dk_t = G v_t + w u ⊙ q_t,    G ← diag(a_t) G + (c_t ⊙ q_t) do_tᵀ

Spans are added up from m outwards, and never as differences of longer ones.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu import matmul, matrices
from zoo.ops.cpu.bfloat16 import Rows, empty_rows, number, rows, widened
from zoo.ops.cpu.jit import called, exp, exps, loop
from zoo.ops.cpu.linear_attention import CHUNK
from zoo.ops.cpu.threads import once_differentiable, run
from zoo.ops.cpu.workspace import workspace

LARGEST_EXPONENT = 40.0
"""e^80, of both factors, is far from the largest float32, e^88; what they give where s > t is thrown away."""


class Sizes(NamedTuple):
    """C, K and V of a chunk, padded, C + 1, whether there is a bonus, and what outputs are multiplied by."""

    C: int
    C1: int
    K: int
    V: int
    bonus: bool
    scale: np.floating


class Inputs(NamedTuple):
    """Or gradients, of the bonus for every row of the batch."""

    q: Rows
    k: Rows
    v: Rows
    g: Rows
    bonus: Tensor


class TiledChannelDecay(torch.autograd.Function):
    """o (B, H, T, V), times `scale`, and the last S, from q, k and log decays (B, H, T, K), v, S (B, H, K, V) and a
    bonus (H, K) or none; q, k, v and o in the dtype of products.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, bonus: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        (B, H, K, V), T = S.shape, v.shape[2]
        flops.count("linear_attention", 4 * q.numel() * V)
        C = min(CHUNK, matmul.padded(T))
        ctx.sizes = Sizes(C, C + 1, matmul.padded(K), matmul.padded(V), bonus is not None, number(scale, S.dtype))
        g = g if g.stride(3) == 1 else g.contiguous()  # one of a head, expanded, is copied once for both passes
        bonus = S.new_ones(H, K) if bonus is None else bonus.contiguous()
        before, o, last = v.new_empty(B, H, -(-T // C), K, V), empty_rows(v), S.new_empty(S.shape)
        inputs = Inputs(rows(q), rows(k), rows(v), rows(g), bonus)
        run(_forward, B * H, ctx.sizes, inputs, S, before, rows(o), last)
        ctx.save_for_backward(q, k, v, g, bonus, before)
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_S: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, bonus, before = ctx.saved_tensors
        B, H, _, V = v.shape
        flops.count("linear_attention", 8 * q.numel() * V)
        d_q, d_k, d_v, d_g = map(empty_rows, (q, k, v, g))
        first, d_bonus = d_S.new_empty(d_S.shape), bonus.new_zeros(B, *bonus.shape)
        inputs = Inputs(rows(q), rows(k), rows(v), rows(g), bonus)
        gradients = Inputs(rows(d_q), rows(d_k), rows(d_v), rows(d_g), d_bonus)
        run(_backward, B * H, ctx.sizes, inputs, rows(d_o), d_S, before, gradients, first)
        return d_q, d_k, d_v, d_g, first, d_bonus.sum(0) if ctx.sizes.bonus else None, None


linear_attention = TiledChannelDecay.apply


@called
def _set_spans(g, C, K, e):  # type: ignore[no-untyped-def]
    """e (C + 1, K), from that before the first step on; whether all stay within the largest exponent."""
    middle = C // 2 + 1
    e[middle * K : middle * K + K] = 0
    for t in range(middle + 1, C + 1):
        log, before, now = g[t * K - K : t * K], e[t * K - K : t * K], e[t * K : t * K + K]
        for i in range(K):
            now[i] = before[i] + log[i]
    for back in range(middle):
        t = middle - 1 - back
        log, after, now = g[t * K : t * K + K], e[t * K + K : t * K + 2 * K], e[t * K : t * K + K]
        for i in range(K):
            now[i] = after[i] - log[i]
    first, last, mild = e[:K], e[C * K : C * K + K], True
    for i in range(K):
        mild &= first[i] <= LARGEST_EXPONENT and last[i] >= -LARGEST_EXPONENT
    return mild


@called
def _grow(x, e, sign, factors, line, to):  # type: ignore[no-untyped-def]
    """x ⊙ e^{± e}, and those factors."""
    for i in range(len(to)):
        factors[i] = exp(sign * e[i])
    for i in range(len(to)):
        line[i] = widened(x[i]) * factors[i]
    matmul.narrow(line, to)


@called
def _decay_rows(S, logs, sign, K, V):  # type: ignore[no-untyped-def]
    for i in range(K):
        row, factor = S[i * V : i * V + V], exp(sign * logs[i])
        for c in range(V):
            row[c] *= factor


@called
def _current(w, bonus, K, t):  # type: ignore[no-untyped-def]
    """q_t · (u ⊙ k_t)."""
    q, k, total = matrices.row_of(w.Q, t, K), matrices.row_of(w.keys, t, K), w.logs.dtype.type(0)
    for i in range(len(bonus)):
        total += widened(q[i]) * bonus[i] * widened(k[i])
    return total


@called
def _current_backward(w, bonus, K, t, slope, d_bonus):  # type: ignore[no-untyped-def]
    """Of `_current`, on top of the gradients of q and k."""
    q, k = matrices.row_of(w.Q, t, K), matrices.row_of(w.keys, t, K)
    d_q, d_k = matrices.row_of(w.d_q, t, K), matrices.row_of(w.d_k, t, K)
    for i in range(len(bonus)):
        d_q[i] += slope * bonus[i] * widened(k[i])
        d_k[i] += slope * bonus[i] * widened(q[i])
        d_bonus[i] += slope * widened(q[i]) * widened(k[i])


@called
def _load_chunk(w, sizes, inputs, b, h, t, ahead):  # type: ignore[no-untyped-def]
    matrices.load_rows(inputs.q, b, h, t, w.Q, sizes.K, ahead)
    matrices.load_rows(inputs.k, b, h, t, w.keys, sizes.K, ahead)
    matrices.load_rows(inputs.g, b, h, t, w.logs, sizes.K, ahead)
    matrices.load_rows(inputs.v, b, h, t, w.values, sizes.V, ahead)


_forward_work = workspace(
    products="C K: Q keys A B transposed; C V: values values_right; K V: state state_right; C C: pairs",
    states="K V: S; C V: out; C C: scores; C1 K: e; C K: logs factors line; V: value",
)


@loop
def _forward(start, stop, sizes, inputs, S, before, o, last):  # type: ignore[no-untyped-def]
    """Work items are heads of rows."""
    C, K, V, H, T = sizes.C, sizes.K, sizes.V, o.H, o.T
    w, setup = _forward_work(sizes, before, S), matmul.enter(before)
    for item in range(start, stop):
        b, h = item // H, item % H
        matrices.load_matrix(S[b, h], w.S, V)
        for t in range(0, T, C):
            _load_chunk(w, sizes, inputs, b, h, t, C)
            mild = _set_spans(w.logs, C, K, w.e)
            if mild:
                _decay_rows(w.S, w.e, -w.S.dtype.type(1), K, V)
            state = matmul.rounded(w.S, w.state)
            matrices.store_matrix(state, V, before[b, h, t // C])
            if mild:
                _forward_about_middle(w, sizes, inputs.bonus[h], state)
            else:
                _forward_steps(w, sizes, inputs.bonus[h], min(C, T - t))
            matrices.scale(w.out, sizes.scale)
            matrices.store_rows(w.out, V, o, b, h, t)
        matrices.store_matrix(w.S, V, last[b, h])
    matmul.leave(setup, before)


@called
def _forward_about_middle(w, sizes, bonus, state):  # type: ignore[no-untyped-def]
    C, K, V, one = sizes.C, sizes.K, sizes.V, w.S.dtype.type(1)
    _grow(w.Q, w.e if sizes.bonus else w.e[K:], one, w.factors, w.line, w.A)
    _grow(w.keys, w.e[K:], -one, w.factors, w.line, w.B)
    matmul.product(w.A, matmul.transpose_right(w.B, w.transposed, C, K), w.scores, C, C, K, False)
    for t in range(C):
        w.scores[t * C + t + 1 : t * C + C] = 0
        if sizes.bonus:
            w.scores[t * C + t] = _current(w, bonus, K, t)
    matmul.product(w.A, matmul.packed_pairs(state, w.state_right, K, V), w.out, C, V, K, False)
    values = matmul.packed_pairs(w.values, w.values_right, C, V)
    matmul.product(matmul.rounded(w.scores, w.pairs), values, w.out, C, V, C, True)
    matmul.transpose_left(matmul.pack_pairs(w.B, w.A, C, K), w.transposed, C, K)
    matmul.product(w.transposed, values, w.S, K, V, C, True)
    _decay_rows(w.S, w.e[C * K :], one, K, V)


@called
def _forward_steps(w, sizes, bonus, steps):  # type: ignore[no-untyped-def]
    K, V, value = sizes.K, sizes.V, w.value
    w.out[:] = 0
    exps(w.logs, w.factors)
    for t in range(steps):
        row, current = w.out[t * V : t * V + V], _current(w, bonus, K, t)
        matrices.widen(w.values[t * V : t * V + V], value)
        for i in range(len(bonus)):
            S, a, k = w.S[i * V : i * V + V], w.factors[t * K + i], widened(w.keys[t * K + i])
            read = widened(w.Q[t * K + i]) if sizes.bonus else a * widened(w.Q[t * K + i])
            for c in range(V):
                row[c] += read * S[c]
                S[c] = a * S[c] + k * value[c]
        for c in range(V):
            row[c] += current * value[c]


_backward_work = workspace(
    products="C K: Q keys A A_right B B_right transposed; C V: values slopes slopes_right slopes_transposed; "
    "K V: state after state_transposed; C C: pairs d_pairs",
    states="K V: G; C C: scores; C V: by_value; C1 K: e d_e; C K: logs d_q d_k grown shrunk; K: begun ended; "
    "V: value slope",
)
"""`grown` and `shrunk` are the e^{e} and e^{−e} of A and B."""


@loop
def _backward(start, stop, sizes, inputs, d_o, d_S, before, gradients, first):  # type: ignore[no-untyped-def]
    C, K, V, H, T = sizes.C, sizes.K, sizes.V, d_o.H, d_o.T
    w, setup = _backward_work(sizes, before, d_S), matmul.enter(before)
    for item in range(start, stop):
        b, h = item // H, item % H
        matrices.load_matrix(d_S[b, h], w.G, V)
        for t in range(C * (before.shape[2] - 1), -1, -C):
            _load_chunk(w, sizes, inputs, b, h, t, -C)
            matrices.load_rows(d_o, b, h, t, w.slopes_right, V, -C)
            for i in range(C * V):
                w.by_value[i] = sizes.scale * widened(w.slopes_right[i])
            matmul.narrow(w.by_value, w.slopes)
            matrices.load_matrix(before[b, h, t // C], w.state, V)
            if _set_spans(w.logs, C, K, w.e):
                _backward_about_middle(w, sizes, inputs.bonus[h], gradients.bonus[b, h])
            else:
                _backward_steps(w, sizes, inputs.bonus[h], gradients.bonus[b, h], min(C, T - t))
            matrices.store_rows(w.by_value, V, gradients.v, b, h, t)
            matrices.store_rows(w.d_q, K, gradients.q, b, h, t)
            matrices.store_rows(w.d_k, K, gradients.k, b, h, t)
            matrices.store_rows(w.logs, K, gradients.g, b, h, t)
        matrices.store_matrix(w.G, V, first[b, h])
    matmul.leave(setup, before)


@called
def _backward_about_middle(w, sizes, bonus, d_bonus):  # type: ignore[no-untyped-def]
    """Gradients of A and B in the place of those of q and k, then of these; in the place of log decays their own."""
    C, K, V, one = sizes.C, sizes.K, sizes.V, w.G.dtype.type(1)
    _grow(w.Q, w.e if sizes.bonus else w.e[K:], one, w.grown, w.d_q, w.A)
    _grow(w.keys, w.e[K:], -one, w.shrunk, w.d_k, w.B)
    _decay_rows(w.G, w.e[C * K :], one, K, V)
    after = matmul.rounded(w.G, w.after)
    w.ended[:] = 0
    matrices.dots(w.state, w.G, K, V, w.ended)
    A, B = matmul.packed_pairs(w.A, w.A_right, C, K), matmul.packed_pairs(w.B, w.B_right, C, K)
    _pairs_backward(w, sizes, bonus)
    # dV
    matmul.product(w.B, matmul.packed_pairs(after, w.state_transposed, K, V), w.by_value, C, V, K, False)
    slopes = matmul.packed_pairs(w.slopes, w.slopes_right, C, V)
    matmul.product(w.pairs, slopes, w.by_value, C, V, C, True)
    # dB and dA
    matmul.product(w.values, matmul.transpose_right(after, w.state_transposed, K, V), w.d_k, C, K, V, False)
    for s in range(C):
        key, row = w.B[s * K : s * K + K], w.d_k[s * K : s * K + K]
        for i in range(K):
            w.ended[i] += widened(key[i]) * row[i]
    matmul.product(w.d_pairs, A, w.d_k, C, K, C, True)
    matmul.product(w.slopes, matmul.transpose_right(w.state, w.state_transposed, K, V), w.d_q, C, K, V, False)
    matmul.transpose_left(matmul.pack_pairs(w.d_pairs, w.pairs, C, C), w.d_pairs, C, C)
    matmul.product(w.d_pairs, B, w.d_q, C, K, C, True)
    # G
    matmul.product(matmul.transpose_left(A, w.transposed, C, K), slopes, w.G, K, V, C, True)
    w.begun[:] = 0
    matrices.dots(w.state, w.G, K, V, w.begun)
    _spans_backward(w, sizes)
    for i in range(C * K):
        w.d_q[i] *= w.grown[i]
    for i in range(C * K):
        w.d_k[i] *= w.shrunk[i]
    if sizes.bonus:
        for t in range(C):
            _current_backward(w, bonus, K, t, w.scores[t * C + t], d_bonus)
    _decay_rows(w.G, w.e, -one, K, V)


@called
def _pairs_backward(w, sizes, bonus):  # type: ignore[no-untyped-def]
    """At [s, t], A Bᵀ and its gradient but for what a bonus puts on its diagonal, which stays in `scores`."""
    C, K, V = sizes.C, sizes.K, sizes.V
    matmul.product(w.B, matmul.transpose_right(w.A, w.transposed, C, K), w.scores, C, C, K, False)
    for s in range(C):
        w.scores[s * C : s * C + s] = 0
        if sizes.bonus:
            w.scores[s * C + s] = _current(w, bonus, K, s)
    matmul.narrow(w.scores, w.pairs)
    matmul.product(w.values, matmul.transpose_right(w.slopes, w.slopes_transposed, C, V), w.scores, C, C, V, False)
    for s in range(C):
        w.scores[s * C : s * C + s] = 0
    matmul.narrow(w.scores, w.d_pairs)
    if sizes.bonus:
        for s in range(C):
            w.d_pairs[s * C + s] = 0


@called
def _spans_backward(w, sizes):  # type: ignore[no-untyped-def]
    """Of log decays: one behind m is in every later e, one up to m in every earlier one, negated."""
    C, K, middle, d_e = sizes.C, sizes.K, sizes.C // 2, w.d_e
    read, written = d_e if sizes.bonus else d_e[K:], d_e[K:]
    d_e[:K] = 0
    d_e[C * K :] = 0
    for i in range(C * K):
        read[i] = widened(w.A[i]) * w.d_q[i]
    for i in range(C * K):
        written[i] -= widened(w.B[i]) * w.d_k[i]
    for i in range(C - 1 - middle):
        t = C - 1 - i
        of, to = written[t * K : t * K + K], w.logs[t * K : t * K + K]
        for c in range(K):
            w.ended[c] += of[c]
            to[c] = w.ended[c]
    for t in range(middle + 1):
        of, to = d_e[t * K : t * K + K], w.logs[t * K : t * K + K]
        for c in range(K):
            w.begun[c] -= of[c]
            to[c] = w.begun[c]


@called
def _backward_steps(w, sizes, bonus, d_bonus, steps):  # type: ignore[no-untyped-def]
    """The states of the chunk once more, then back."""
    C, K, V, zero = sizes.C, sizes.K, sizes.V, w.G.dtype.type(0)
    states, value, slope = np.empty((C + 1, K * V), w.G.dtype), w.value, w.slope
    matrices.widen(w.state, states[0])
    exps(w.logs, w.grown)
    for t in range(steps):
        matrices.widen(w.values[t * V : t * V + V], value)
        for i in range(K):
            S, to = states[t, i * V : i * V + V], states[t + 1, i * V : i * V + V]
            a, k = w.grown[t * K + i], widened(w.keys[t * K + i])
            for c in range(V):
                to[c] = a * S[c] + k * value[c]
    for back in range(steps):
        t = steps - 1 - back
        matrices.widen(w.values[t * V : t * V + V], value)
        matrices.widen(w.slopes[t * V : t * V + V], slope)
        d_v, current, of_current = w.by_value[t * V : t * V + V], _current(w, bonus, K, t), zero
        for c in range(V):
            d_v[c] = current * slope[c]
            of_current += value[c] * slope[c]
        for i in range(K):
            at, S, G = t * K + i, states[t, i * V : i * V + V], w.G[i * V : i * V + V]
            a, q, k = w.grown[at], widened(w.Q[at]), widened(w.keys[at])
            by = w.grown.dtype.type(1) if sizes.bonus else a
            read, written, kept = zero, zero, zero
            for c in range(V):
                read += S[c] * slope[c]
                written += G[c] * value[c]
                kept += G[c] * S[c]
                d_v[c] += k * G[c]
                G[c] = a * G[c] + by * q * slope[c]
            w.d_q[at], w.d_k[at] = by * read, written
            w.logs[at] = a * kept if sizes.bonus else a * (kept + q * read)
        _current_backward(w, bonus, K, t, of_current, d_bonus)
