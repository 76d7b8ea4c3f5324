"""Gated linear attention with a decay per channel as a compiled loop: a head's state stays in L1 while time goes by.

A decay per channel does not come out of the products q_t · k_s, so that chunks would be many small matmuls. The loop is
the recurrence itself, and a decay acts one step at a time: no sum of logarithms, and −inf forgets exactly. The forward
pass keeps S at every LENGTH-th step alone. The backward pass goes through those spans from the last to the first: it
runs one forward again, keeping S behind each of its steps, then runs it backward. With G the gradient of S_t,

    G += q_t do_tᵀ,    dq_t = S_t do_t,    dk_t = G v_t,    dv_t = Gᵀ k_t,
    d ln a_t = a_t ⊙ (G ⊙ S_{t−1}) 1,    G ← diag(a_t) G

and where outputs read the state before its update, q_t do_tᵀ joins G at the end, dq_t = S_{t−1} do_t.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import exps, inlined, loop
from zoo.ops.cpu.threads import run

LENGTH = 16
"""Steps between two kept states."""


class CompiledLinearAttention(torch.autograd.Function):
    """`naive.recurrent` with a decay per channel on float32 or float64 tensors of a CPU, all of one dtype.

    o and S from q, k, log_decay (B, H, T, K), v (B, H, T, V), S0 (B, H, K, V) and the bonus (H, K) or None.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, S0: Tensor, bonus: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        B, H, T, K = q.shape
        flops.count("linear_attention", 4 * q.numel() * v.shape[-1])
        kept = q.new_empty(B, H, -(-T // LENGTH) + 1, K, v.shape[-1])
        kept[:, :, 0] = S0
        o = q.new_empty(B, T, H, v.shape[-1])
        rows = [_by_time(x) for x in (q, k, v, log_decay)]
        u = q.new_zeros(H, K) if bonus is None else bonus
        arrays = [*rows, u, kept, o]
        run(_forward, B * H, bonus is not None, *arrays)
        ctx.save_for_backward(*rows, u, kept)
        ctx.bonus = bonus is not None
        return o.transpose(1, 2), kept[:, :, -1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor, dS: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, log_decay, u, kept = ctx.saved_tensors
        flops.count("linear_attention", 8 * q.numel() * v.shape[-1])
        dq, dk, dv, dg = (torch.empty_like(x) for x in (q, k, v, log_decay))
        G = dS.clone(memory_format=torch.contiguous_format)
        du = u.new_zeros(q.shape[0], *u.shape)
        arrays = [q, k, v, log_decay, u, kept, _by_time(do), G, dq, dk, dv, dg, du]
        run(_backward, q.shape[0] * q.shape[2], ctx.bonus, *arrays)
        by_head = [x.transpose(1, 2) for x in (dq, dk, dv, dg)]
        return *by_head, G, du.sum(0) if ctx.bonus else None


def _by_time(x: Tensor) -> Tensor:
    """(B, H, T, F) as a contiguous (B, T, H, F), which features split into heads already are."""
    return x.transpose(1, 2).contiguous()


@loop
def _forward(start, stop, before, q, k, v, log_decay, u, kept, o):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1, each a head of a row. `before`: outputs read the state before its update."""
    _, T, H, K = q.shape
    V = v.shape[-1]
    for item in range(start, stop):
        b, h = item // H, item % H
        S = kept[b, h, 0].copy()
        a, o_ = np.empty(K, q.dtype), np.empty(V, q.dtype)
        for t in range(T):
            q_, k_, v_, u_ = q[b, t, h], k[b, t, h], v[b, t, h], u[h]
            exps(log_decay[b, t, h], a)
            o_[:] = 0
            if before:
                for i in range(K):
                    _read_then_update(S[i], a[i], q_[i], k_[i], v_, o_)
                _add(o_, _dot3(q_, u_, k_), v_)
            else:
                for i in range(K):
                    update_then_read(S[i], a[i], q_[i], k_[i], v_, o_)
            o[b, t, h] = o_
            if (t + 1) % LENGTH == 0 or t == T - 1:
                kept[b, h, t // LENGTH + 1] = S


@loop
def _backward(start, stop, before, q, k, v, log_decay, u, kept, do, dS, dq, dk, dv, dg, du):  # type: ignore[no-untyped-def]
    _, T, H, K = q.shape
    V = v.shape[-1]
    for item in range(start, stop):
        b, h = item // H, item % H
        Ss, G = np.empty((LENGTH + 1, K, V), q.dtype), dS[b, h].copy()
        a, dv_, u_, du_ = np.empty((LENGTH, K), q.dtype), np.empty(V, q.dtype), u[h], np.zeros(K, q.dtype)
        dq_, dk_, dg_ = np.empty(K, q.dtype), np.empty(K, q.dtype), np.empty(K, q.dtype)
        for span in range(-(-T // LENGTH) - 1, -1, -1):
            origin = span * LENGTH
            steps = min(LENGTH, T - origin)
            Ss[0] = kept[b, h, span]
            for j in range(steps):
                k_, v_ = k[b, origin + j, h], v[b, origin + j, h]
                exps(log_decay[b, origin + j, h], a[j])
                for i in range(K):
                    update(Ss[j, i], a[j, i], k_[i], v_, Ss[j + 1, i])
            for j in range(steps - 1, -1, -1):
                t = origin + j
                q_, k_, v_, do_ = q[b, t, h], k[b, t, h], v[b, t, h], do[b, t, h]
                dv_[:] = 0
                if before:
                    for i in range(K):
                        dq_[i], dk_[i], dg_[i] = _step_back_before(G[i], Ss[j, i], a[j, i], q_[i], k_[i], v_, do_, dv_)
                    _add(dv_, _dot3(q_, u_, k_), do_)
                    _bonus_back(_dot(v_, do_), q_, k_, u_, dq_, dk_, du_)
                else:
                    for i in range(K):
                        dq_[i], dk_[i], dg_[i] = step_back_after(
                            G[i], Ss[j, i], Ss[j + 1, i], a[j, i], q_[i], k_[i], v_, do_, dv_
                        )
                dq[b, t, h], dk[b, t, h], dv[b, t, h], dg[b, t, h] = dq_, dk_, dv_, dg_
        dS[b, h] = G
        du[b, h] = du_


@inlined
def _add(y, c, x):  # type: ignore[no-untyped-def]
    for i in range(len(y)):
        y[i] += c * x[i]


@inlined
def _dot(x, y):  # type: ignore[no-untyped-def]
    total = x[0] * y[0]
    for i in range(1, len(x)):
        total += x[i] * y[i]
    return total


@inlined
def _dot3(x, y, z):  # type: ignore[no-untyped-def]
    total = x[0] * y[0] * z[0]
    for i in range(1, len(x)):
        total += x[i] * y[i] * z[i]
    return total


@inlined
def update(S, a, k, v, S_after):  # type: ignore[no-untyped-def]
    for j in range(len(v)):
        S_after[j] = a * S[j] + k * v[j]


@inlined
def update_then_read(S, a, q, k, v, o):  # type: ignore[no-untyped-def]
    for j in range(len(o)):
        s = a * S[j] + k * v[j]
        S[j] = s
        o[j] += q * s


@inlined
def _read_then_update(S, a, q, k, v, o):  # type: ignore[no-untyped-def]
    for j in range(len(o)):
        s = S[j]
        o[j] += q * s
        S[j] = a * s + k * v[j]


@inlined
def step_back_after(G, S_before, S_after, a, q, k, v, do, dv):  # type: ignore[no-untyped-def]
    zero = a - a
    dq, dk, da = zero, zero, zero
    for j in range(len(dv)):
        g = G[j] + q * do[j]
        dq += S_after[j] * do[j]
        dk += g * v[j]
        da += g * S_before[j]
        dv[j] += k * g
        G[j] = a * g
    return dq, dk, a * da


@inlined
def _step_back_before(G, S_before, a, q, k, v, do, dv):  # type: ignore[no-untyped-def]
    zero = a - a
    dq, dk, da = zero, zero, zero
    for j in range(len(dv)):
        g = G[j]
        dq += S_before[j] * do[j]
        dk += g * v[j]
        da += g * S_before[j]
        dv[j] += k * g
        G[j] = a * g + q * do[j]
    return dq, dk, a * da


@inlined
def _bonus_back(vdo, q, k, u, dq, dk, du):  # type: ignore[no-untyped-def]
    for i in range(len(q)):
        dq[i] += u[i] * k[i] * vdo
        dk[i] += q[i] * u[i] * vdo
        du[i] += q[i] * k[i] * vdo
