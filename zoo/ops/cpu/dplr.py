"""Delta rules as compiled loops: the inverse within a chunk, and the diagonal-plus-low-rank rule step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import exps, inlined, loop
from zoo.ops.cpu.threads import run

LENGTH = 16
"""Steps between two kept states."""


def inverse(coupling: Float[Tensor, "N C C"]) -> Float[Tensor, "N C C"]:
    """(I + coupling)⁻¹ on a CPU; coupling is strictly lower triangular, and what is not below its diagonal not read."""
    out = torch.empty(coupling.shape, dtype=coupling.dtype)
    run(_inverse, len(coupling), coupling, out)
    return out


@inlined
def invert(coupling, rows, row):  # type: ignore[no-untyped-def]
    """Row t is e_t − Σ_{s<t} coupling_ts row_s; `rows` is zero above its diagonal.

    Four rows at once, since each pass reads and writes what it sums, and whole ones: many lengths take longer than one.
    """
    C = len(row)
    for t in range(C):
        w = coupling[t]
        row[:] = 0
        fours = t // 4 * 4
        for s in range(0, fours, 4):
            w0, w1, w2, w3 = w[s], w[s + 1], w[s + 2], w[s + 3]
            r0, r1, r2, r3 = rows[s], rows[s + 1], rows[s + 2], rows[s + 3]
            for j in range(C):
                row[j] -= w0 * r0[j] + w1 * r1[j] + w2 * r2[j] + w3 * r3[j]
        for s in range(fours, t):
            w0, r0 = w[s], rows[s]
            for j in range(C):
                row[j] -= w0 * r0[j]
        row[t] = 1
        to = rows[t]
        for j in range(C):
            to[j] = row[j]


@loop
def _inverse(start, stop, coupling, out):  # type: ignore[no-untyped-def]
    C = coupling.shape[1]
    rows, row = np.zeros((C, C), coupling.dtype), np.empty(C, coupling.dtype)
    for item in range(start, stop):
        invert(coupling[item], rows, row)
        out[item] = rows


class CompiledDPLR(torch.autograd.Function):
    """`naive.dplr_naive` on float32 or float64 tensors of a CPU, all of one dtype, one step after another.

    A head's state stays in L1 or L2 while time goes by; a decay acts one step at a time, so that it needs no floor. The
    forward pass keeps S at every LENGTH-th step alone. The backward pass goes through those spans from the last to the
    first: it runs one forward again, keeping S behind each of its steps, then runs it backward. With r = S_{t−1}ᵀ a_t
    and G the gradient of S_t,

        G += q doᵀ,    dq = S_t do,    dk = G v,    dv = Gᵀ k,    db = G r,    dr = Gᵀ b,
        d ln w = w ⊙ (G ⊙ S_{t−1}) 1,    da = S_{t−1} dr,    G ← diag(w) G + a drᵀ
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_decay: Tensor, S0: Tensor
    ) -> tuple[Tensor, Tensor]:
        B, H, T, K = q.shape
        flops.count("delta_rule", 8 * q.numel() * v.shape[-1])
        kept = q.new_empty(B, H, -(-T // LENGTH) + 1, K, v.shape[-1])
        kept[:, :, 0] = S0
        o = q.new_empty(B, T, H, v.shape[-1])
        rows = [x.transpose(1, 2).contiguous() for x in (q, k, v, a, b, log_decay)]
        arrays = [*rows, kept, o]
        run(_forward, B * H, *arrays)
        ctx.save_for_backward(*rows, kept)
        return o.transpose(1, 2), kept[:, :, -1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor, dS: Tensor) -> tuple[Tensor | None, ...]:
        *rows, kept = ctx.saved_tensors
        flops.count("delta_rule", 16 * rows[0].numel() * kept.shape[-1])
        G = dS.clone(memory_format=torch.contiguous_format)
        grads = [torch.empty_like(x) for x in rows]
        arrays = [*rows, kept, do.transpose(1, 2), G, *grads]
        run(_backward, kept.shape[0] * kept.shape[1], *arrays)
        return *(x.transpose(1, 2) for x in grads), G


@loop
def _forward(start, stop, q, k, v, a, b, log_decay, kept, o):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1, each a head of a row."""
    _, T, H, K = q.shape
    V = v.shape[-1]
    for item in range(start, stop):
        n, h = item // H, item % H
        S = kept[n, h, 0].copy()
        w, r, o_ = np.empty(K, q.dtype), np.empty(V, q.dtype), np.empty(V, q.dtype)
        for t in range(T):
            q_, k_, v_, a_, b_ = q[n, t, h], k[n, t, h], v[n, t, h], a[n, t, h], b[n, t, h]
            exps(log_decay[n, t, h], w)
            r[:] = 0
            o_[:] = 0
            for i in range(K):
                _read(S[i], a_[i], r)
            for i in range(K):
                _update(S[i], w[i], b_[i], k_[i], r, v_, S[i])
                _read(S[i], q_[i], o_)
            o[n, t, h] = o_
            if (t + 1) % LENGTH == 0 or t == T - 1:
                kept[n, h, t // LENGTH + 1] = S


@loop
def _backward(  # type: ignore[no-untyped-def]
    start, stop, q, k, v, a, b, log_decay, kept, do, dS, dq, dk, dv, da, db, dw
):
    _, T, H, K = q.shape
    V = v.shape[-1]
    for item in range(start, stop):
        n, h = item // H, item % H
        Ss, rs, ws = (
            np.empty((LENGTH + 1, K, V), q.dtype),
            np.empty((LENGTH, V), q.dtype),
            np.empty((LENGTH, K), q.dtype),
        )
        G, dr, dv_ = dS[n, h].copy(), np.empty(V, q.dtype), np.empty(V, q.dtype)
        dq_, dk_, da_, db_, dw_ = (
            np.empty(K, q.dtype),
            np.empty(K, q.dtype),
            np.empty(K, q.dtype),
            np.empty(K, q.dtype),
            np.empty(K, q.dtype),
        )
        for span in range(-(-T // LENGTH) - 1, -1, -1):
            origin = span * LENGTH
            steps = min(LENGTH, T - origin)
            Ss[0] = kept[n, h, span]
            for j in range(steps):
                t = origin + j
                k_, v_, a_, b_, r = k[n, t, h], v[n, t, h], a[n, t, h], b[n, t, h], rs[j]
                exps(log_decay[n, t, h], ws[j])
                r[:] = 0
                for i in range(K):
                    _read(Ss[j, i], a_[i], r)
                for i in range(K):
                    _update(Ss[j, i], ws[j, i], b_[i], k_[i], r, v_, Ss[j + 1, i])
            for j in range(steps - 1, -1, -1):
                t = origin + j
                q_, k_, v_, a_, b_, do_ = q[n, t, h], k[n, t, h], v[n, t, h], a[n, t, h], b[n, t, h], do[n, t, h]
                dr[:] = 0
                dv_[:] = 0
                for i in range(K):
                    dq_[i], dk_[i], db_[i], dw_[i] = _write_backward(
                        G[i], Ss[j, i], Ss[j + 1, i], q_[i], k_[i], b_[i], v_, do_, rs[j], dv_, dr
                    )
                    dw_[i] *= ws[j, i]
                for i in range(K):
                    da_[i] = _read_backward(G[i], Ss[j, i], ws[j, i], a_[i], dr)
                dq[n, t, h], dk[n, t, h], dv[n, t, h] = dq_, dk_, dv_
                da[n, t, h], db[n, t, h], dw[n, t, h] = da_, db_, dw_
        dS[n, h] = G


@inlined
def _read(S, x, y):  # type: ignore[no-untyped-def]
    for j in range(len(y)):
        y[j] += x * S[j]


@inlined
def _update(S, w, b, k, r, v, after):  # type: ignore[no-untyped-def]
    for j in range(len(r)):
        after[j] = w * S[j] + b * r[j] + k * v[j]


@inlined
def _write_backward(G, before, after, q, k, b, v, do, r, dv, dr):  # type: ignore[no-untyped-def]
    zero = q - q
    dq, dk, db, dw = zero, zero, zero, zero
    for j in range(len(dr)):
        g = G[j] + q * do[j]
        G[j] = g
        dq += after[j] * do[j]
        dk += g * v[j]
        db += g * r[j]
        dw += g * before[j]
        dv[j] += k * g
        dr[j] += b * g
    return dq, dk, db, dw


@inlined
def _read_backward(G, before, w, a, dr):  # type: ignore[no-untyped-def]
    da = a - a
    for j in range(len(dr)):
        da += before[j] * dr[j]
        G[j] = w * G[j] + a * dr[j]
    return da
