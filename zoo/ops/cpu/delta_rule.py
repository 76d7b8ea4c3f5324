"""The delta rule in chunks, each head from its first step to its last in one loop.

Equations as in `zoo.ops.delta_rule.chunked`. Backward, with dS of the state behind a chunk, f = du and Z = [−β f; do]
the gradient of the readings [M; P] u + D [K; Q] S:

    β f = (I + M β)⁻ᵀ β (Pᵀ do + E K dS),    f = Pᵀ do + E K dS − Mᵀ β f,    dv = β f,    dβ_t = e_t·f_t
    Y = (Z uᵀ) ⊙ Γ,    [dk; dq] = D Z Sᵀ + Y K,    dk += Yᵀ [K; Q] + E u dSᵀ,    dS ← e^{c_C} dS + (D [K; Q])ᵀ Z

A log decay c_t raises what is read at t and lowers what is written there; what both share cancels in float32. Products
are those of `zoo.ops.cpu.matmul`, the inverse is in float32; what is between them stays in the cache.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu import matmul, matrices
from zoo.ops.cpu.bfloat16 import Rows, empty_rows, rows, widened
from zoo.ops.cpu.jit import called, copy, loop
from zoo.ops.cpu.linear_attention import decays_backward, renew, set_decays, sizes_of
from zoo.ops.cpu.threads import once_differentiable, run
from zoo.ops.cpu.workspace import workspace


class Inputs(NamedTuple):
    q: Rows
    k: Rows
    beta: Tensor
    g: Tensor


class Chunks(NamedTuple):
    """What the backward pass needs of every chunk: S before it, (I + M β)⁻¹ and e."""

    S: Tensor
    inverse: Tensor
    errors: Tensor


class Gradients(NamedTuple):
    q: Rows
    k: Rows
    v: Rows
    beta: Tensor
    g: Tensor


class TiledDeltaRule(torch.autograd.Function):
    """o (B, H, T, V) and the last S, from q and k (B, H, T, K), v, β and log decays (B, H, T) or none, and S
    (B, H, K, V); q, k, v and o in the dtype of products.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None, S: Tensor
    ) -> tuple[Tensor, Tensor]:
        (B, H, K, V), T, ctx.sizes = S.shape, v.shape[2], sizes_of(q, v, g)
        beta, g, C = beta.contiguous(), S.new_zeros(B, H, T) if g is None else g.contiguous(), ctx.sizes.C
        chunks = Chunks(*(v.new_empty(B, H, -(-T // C), *size) for size in ((K, V), (C * C,), (C, V))))
        o, last = empty_rows(v), S.new_empty(S.shape)
        run(_forward, B * H, ctx.sizes, Inputs(rows(q), rows(k), beta, g), rows(v), S, chunks, rows(o), last)
        ctx.save_for_backward(q, k, beta, g, *chunks)
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_S: Tensor) -> tuple[Tensor | None, ...]:
        q, k, beta, g, *chunks = ctx.saved_tensors
        (B, H), (d_q, d_k, d_v) = beta.shape[:2], map(empty_rows, (q, k, d_o))
        d_beta, d_g, first = torch.empty_like(beta), torch.empty_like(g), d_S.new_empty(d_S.shape)
        inputs, gradients = Inputs(rows(q), rows(k), beta, g), Gradients(rows(d_q), rows(d_k), rows(d_v), d_beta, d_g)
        run(_backward, B * H, ctx.sizes, inputs, rows(d_o), d_S, Chunks(*chunks), gradients, first)
        return d_q, d_k, d_v, d_beta, d_g if ctx.sizes.fades else None, first


delta_rule = TiledDeltaRule.apply


@called
def _invert(coupling, result, row, C):  # type: ignore[no-untyped-def]
    """(I + coupling)⁻¹, of what is below the diagonal: row t is e_t − Σ_{s<t} coupling_ts row_s.

    Four rows at once, since each pass reads and writes what it sums, and whole ones: many lengths take longer than one.
    """
    for t in range(C):
        w = coupling[t * C : t * C + C]
        row[:] = 0
        fours = t // 4 * 4
        for s in range(0, fours, 4):
            w0, w1, w2, w3, at = w[s], w[s + 1], w[s + 2], w[s + 3], s * C
            r0, r1 = result[at : at + C], result[at + C : at + 2 * C]
            r2, r3 = result[at + 2 * C : at + 3 * C], result[at + 3 * C : at + 4 * C]
            for j in range(C):
                row[j] -= w0 * r0[j] + w1 * r1[j] + w2 * r2[j] + w3 * r3[j]
        for s in range(fours, t):
            w0, r0 = w[s], result[s * C : s * C + C]
            for j in range(C):
                row[j] -= w0 * r0[j]
        row[t] = 1
        copy(row, matrices.row_of(result, t, C))


_forward_work = workspace(
    products="C K: Q keys keys_left keys_right; C V: values errors writes right; K V: state state_right; "
    "C C: pairs inverse",
    states="K V: S; C V: read out; C C: weights scores coupling solved; C: own start end span line beta",
)


@loop
def _forward(start, stop, sizes, inputs, v, S, chunks, o, last):  # type: ignore[no-untyped-def]
    """Work items are heads of rows."""
    C, K, V = sizes.C, sizes.K, sizes.V
    w, setup = _forward_work(sizes, chunks.S, S), matmul.enter(chunks.S)
    for item in range(start, stop):
        b, h = item // v.H, item % v.H
        matrices.load_matrix(S[b, h], w.S, V)
        w.own[:] = np.nan
        for n in range(chunks.S.shape[2]):
            t = n * C
            matrices.load_rows(inputs.q, b, h, t, w.Q, K, C)
            matrices.load_rows(inputs.k, b, h, t, w.keys, K, C)
            matrices.load_rows(v, b, h, t, w.values, V, C)
            renew(inputs.beta[b, h, t:], w.beta)
            set_decays(inputs.g[b, h, t:], False, w)
            state = matmul.rounded(w.S, w.state)
            matrices.store_matrix(state, V, chunks.S[b, h, n])
            _solve(w, sizes, chunks.inverse[b, h, n])
            _read_and_write(w, sizes, state, chunks.errors[b, h, n])
            matrices.store_rows(w.out, V, o, b, h, t)
        matrices.store_matrix(w.S, V, last[b, h])
    matmul.leave(setup, chunks.S)


@called
def _solve(w, sizes, inverse):  # type: ignore[no-untyped-def]
    """P, in `scores`, and (I + M β)⁻¹, which is kept."""
    C, K, weights = sizes.C, sizes.K, w.weights
    matmul.transpose_right(w.keys, w.keys_right, C, K)
    matmul.product(w.Q, w.keys_right, w.scores, C, C, K, False)
    for i in range(C * C):
        w.scores[i] *= weights[i]
    matmul.product(w.keys, w.keys_right, w.coupling, C, C, K, False)
    for t in range(C):
        row, weight = w.coupling[t * C : t * C + C], weights[t * C : t * C + C]
        for s in range(C):
            row[s] *= weight[s] * w.beta[s]
    _invert(w.coupling, w.solved, w.line, C)
    matmul.narrow(w.solved, w.inverse)
    copy(w.inverse, inverse)


@called
def _read_and_write(w, sizes, state, errors):  # type: ignore[no-untyped-def]
    """e, which is kept, o and S."""
    C, K, V, fades = sizes.C, sizes.K, sizes.V, sizes.fades
    state = matmul.packed_pairs(state, w.state_right, K, V)
    matmul.product(w.keys, state, w.read, C, V, K, False)
    if fades:
        matrices.scale_rows(w.read, w.start, C, V)
    for i in range(C * V):
        w.read[i] = widened(w.values[i]) - w.read[i]
    matmul.narrow(w.read, w.errors)
    matmul.product(w.inverse, matmul.packed_pairs(w.errors, w.right, C, V), w.read, C, V, C, False)
    matmul.narrow(w.read, w.errors)
    matrices.store_matrix(w.errors, V, errors)
    matrices.scale_rows(w.read, w.beta, C, V)
    matmul.narrow(w.read, w.writes)
    writes = matmul.packed_pairs(w.writes, w.right, C, V)
    matmul.product(w.Q, state, w.out, C, V, K, False)
    if fades:
        matrices.scale_rows(w.out, w.start, C, V)
    matmul.product(matmul.rounded(w.scores, w.pairs), writes, w.out, C, V, C, True)
    if fades:
        matrices.scale_into(w.writes, w.end, C, V, w.errors)
        writes = matmul.packed_pairs(w.errors, w.right, C, V)
        matrices.scale(w.S, w.start[C - 1])
    matmul.transpose_left(matmul.packed_pairs(w.keys, w.keys_right, C, K), w.keys_left, C, K)
    matmul.product(w.keys_left, writes, w.S, K, V, C, True)


_backward_work = workspace(
    products="C K: Q Q_right keys keys_right transposed; "
    "C V: slopes slopes_right Z Z_right errors writes writes_transposed; K V: state after state_transposed; "
    "C C: square square_right inverse Y_k Y_q",
    states="K V: G; C C: weights M P scores; C V: f change; C K: by_key by_query; "
    "C: own start end span spans beta read written d_beta",
)


@loop
def _backward(start, stop, sizes, inputs, d_o, d_S, chunks, gradients, first):  # type: ignore[no-untyped-def]
    C, K, V = sizes.C, sizes.K, sizes.V
    w, setup = _backward_work(sizes, chunks.S, d_S), matmul.enter(chunks.S)
    for item in range(start, stop):
        b, h = item // d_o.H, item % d_o.H
        matrices.load_matrix(d_S[b, h], w.G, V)
        w.own[:] = np.nan
        for n in range(chunks.S.shape[2] - 1, -1, -1):
            t = n * C
            matrices.load_rows(inputs.q, b, h, t, w.Q, K, -C)
            matrices.load_rows(inputs.k, b, h, t, w.keys, K, -C)
            matrices.load_rows(d_o, b, h, t, w.slopes, V, -C)
            matrices.load_matrix(chunks.S[b, h, n], w.state, V)
            matrices.load_matrix(chunks.errors[b, h, n], w.errors, V)
            copy(chunks.inverse[b, h, n], w.inverse)
            renew(inputs.beta[b, h, t:], w.beta)
            set_decays(inputs.g[b, h, t:], False, w)
            matrices.scale_into(w.errors, w.beta, C, V, w.writes)
            after = matmul.rounded(w.G, w.after)
            Q, keys = matmul.packed_pairs(w.Q, w.Q_right, C, K), matmul.packed_pairs(w.keys, w.keys_right, C, K)
            slopes, Z = _writes_backward(w, sizes, after)
            matrices.scale(w.change, -w.change.dtype.type(1))
            matrices.store_rows(w.change, V, gradients.v, b, h, t)
            copy(w.d_beta, gradients.beta[b, h, t:])
            _pairs_backward(w, sizes)
            _readings_backward(w, sizes, Q, keys)
            matrices.store_rows(w.by_query, K, gradients.q, b, h, t)
            _keys_backward(w, sizes, after, gradients.g[b, h, t:])
            matrices.store_rows(w.by_key, K, gradients.k, b, h, t)
            _state_backward(w, sizes, Q, keys, slopes, Z)
        matrices.store_matrix(w.G, V, first[b, h])
    matmul.leave(setup, chunks.S)


@called
def _transpose(x, w, C):  # type: ignore[no-untyped-def]
    """The left form of Xᵀ of a square, until the next."""
    return matmul.transpose_left(matmul.pack_pairs(x, w.square_right, C, C), w.square, C, C)


@called
def _writes_backward(w, sizes, after):  # type: ignore[no-untyped-def]
    """M and P once more; Z, of −β f, which in full is `change`; dβ. Returns the right forms of do and Z."""
    C, K, V, weights = sizes.C, sizes.K, sizes.V, w.weights
    matmul.transpose_right(w.keys, w.transposed, C, K)
    matmul.product(w.Q, w.transposed, w.P, C, C, K, False)
    matmul.product(w.keys, w.transposed, w.M, C, C, K, False)
    for i in range(C * C):
        w.P[i] *= weights[i]
    for i in range(C * C):
        w.M[i] *= weights[i]
    for t in range(C):
        w.M[t * C + t] = 0
    # f, first without what later steps of the chunk read of it
    matmul.product(w.keys, matmul.packed_pairs(after, w.state_transposed, K, V), w.f, C, V, K, False)
    if sizes.fades:
        matrices.scale_rows(w.f, w.end, C, V)
    matmul.narrow(w.P, w.Y_q)
    slopes = matmul.packed_pairs(w.slopes, w.slopes_right, C, V)
    matmul.product(_transpose(w.Y_q, w, C), slopes, w.f, C, V, C, True)
    matrices.scale_into(w.f, w.beta, C, V, w.change)
    matmul.narrow(w.change, w.Z)
    matmul.product(_transpose(w.inverse, w, C), matmul.packed_pairs(w.Z, w.Z_right, C, V), w.change, C, V, C, False)
    matrices.scale(w.change, -w.change.dtype.type(1))
    matmul.narrow(w.change, w.Z)
    matmul.narrow(w.M, w.Y_k)
    Z = matmul.packed_pairs(w.Z, w.Z_right, C, V)
    matmul.product(_transpose(w.Y_k, w, C), Z, w.f, C, V, C, True)
    w.d_beta[:] = 0
    matrices.dots(w.errors, w.f, C, V, w.d_beta)
    return slopes, Z


@called
def _pairs_backward(w, sizes):  # type: ignore[no-untyped-def]
    """Y, of keys and of queries; and what Γ says of log decays, read at t and written at s."""
    C, V, weights = sizes.C, sizes.V, w.weights
    matmul.transpose_right(w.writes, w.writes_transposed, C, V)
    w.read[:] = 0
    w.written[:] = 0
    matmul.product(w.Z, w.writes_transposed, w.scores, C, C, V, False)
    if sizes.fades:
        _shared(w.scores, w.M, C, w.read, w.written)
    for t in range(C):
        row, weight = w.scores[t * C : t * C + C], weights[t * C : t * C + C]
        for s in range(C):
            row[s] *= weight[s]
        row[t] = 0
    matmul.narrow(w.scores, w.Y_k)
    matmul.product(w.slopes, w.writes_transposed, w.scores, C, C, V, False)
    if sizes.fades:
        _shared(w.scores, w.P, C, w.read, w.written)
    for i in range(C * C):
        w.scores[i] *= weights[i]
    matmul.narrow(w.scores, w.Y_q)


@called
def _shared(slopes, pairs, C, by_row, by_column):  # type: ignore[no-untyped-def]
    """Sums of slopes ⊙ pairs, which are zero where a step does not read."""
    for t in range(C):
        row, pair, total = slopes[t * C : t * C + C], pairs[t * C : t * C + C], by_row[t]
        for s in range(C):
            by_column[s] += row[s] * pair[s]
        for s in range(C):
            total += row[s] * pair[s]
        by_row[t] = total


@called
def _readings_backward(w, sizes, Q, keys):  # type: ignore[no-untyped-def]
    """dQ, and of keys what they read and what Yᵀ says."""
    C, K, V = sizes.C, sizes.K, sizes.V
    before = matmul.transpose_right(w.state, w.state_transposed, K, V)
    matmul.product(w.slopes, before, w.by_query, C, K, V, False)
    matmul.product(w.Z, before, w.by_key, C, K, V, False)
    if sizes.fades:
        matrices.scale_rows(w.by_query, w.start, C, K)
        matrices.scale_rows(w.by_key, w.start, C, K)
        matrices.dots(w.Q, w.by_query, C, K, w.read)
        matrices.dots(w.keys, w.by_key, C, K, w.read)
    matmul.product(w.Y_q, keys, w.by_query, C, K, C, True)
    matmul.product(w.Y_k, keys, w.by_key, C, K, C, True)
    matmul.product(_transpose(w.Y_k, w, C), keys, w.by_key, C, K, C, True)
    matmul.product(_transpose(w.Y_q, w, C), Q, w.by_key, C, K, C, True)


@called
def _keys_backward(w, sizes, after, d_g):  # type: ignore[no-untyped-def]
    """dK with what keys write into the state, and the gradients of log decays."""
    C, K, V = sizes.C, sizes.K, sizes.V
    matmul.product(w.writes, matmul.transpose_right(after, w.state_transposed, K, V), w.by_query, C, K, V, False)
    if sizes.fades:
        matrices.scale_rows(w.by_query, w.end, C, K)
        w.spans[:] = 0
        matrices.dots(w.keys, w.by_query, C, K, w.spans)
        total = matrices.inner(w.state, w.G, w.G.dtype.type(0))
        decays_backward(w, w.start[C - 1] * total, d_g)
    matrices.add(w.by_query, w.by_key)


@called
def _state_backward(w, sizes, Q, keys, slopes, Z):  # type: ignore[no-untyped-def]
    """G before the chunk, from the right forms of all."""
    C, K, V = sizes.C, sizes.K, sizes.V
    if sizes.fades:
        matrices.scale(w.G, w.start[C - 1])
        matrices.scale_into(w.slopes, w.start, C, V, w.slopes)
        matrices.scale_into(w.Z, w.start, C, V, w.Z)
        slopes, Z = matmul.packed_pairs(w.slopes, w.slopes_right, C, V), matmul.packed_pairs(w.Z, w.Z_right, C, V)
    matmul.product(matmul.transpose_left(Q, w.transposed, C, K), slopes, w.G, K, V, C, True)
    matmul.product(matmul.transpose_left(keys, w.transposed, C, K), Z, w.G, K, V, C, True)
