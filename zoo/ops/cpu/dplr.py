"""The diagonal-plus-low-rank rule in a compiled loop, step by step.

A head's state stays in L1 or L2 while time goes by; a decay acts one step at a time, so that it needs no floor. The
forward pass keeps S at every LENGTH-th step alone. The backward pass goes through those spans from the last to the
first: it runs one forward again, keeping S behind each of its steps, then runs it backward. With r = S_{t−1}ᵀ a_t and G
the gradient of S_t,

    G += q doᵀ,    dq = S_t do,    dk = G v,    dv = Gᵀ k,    db = G r,    dr = Gᵀ b,
    d ln w = w ⊙ (G ⊙ S_{t−1}) 1,    da = S_{t−1} dr,    G ← diag(w) G + a drᵀ
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import copy, exps, inlined, loop
from zoo.ops.cpu.threads import once_differentiable, run

LENGTH = 16
"""Steps between two kept states."""


class Steps(NamedTuple):
    """Inputs (B, T, H, ·), or their gradients."""

    q: Any
    k: Any
    v: Any
    a: Any
    b: Any
    log_decay: Any


class CompiledDPLR(torch.autograd.Function):
    """As `naive.dplr_naive` on float32 or float64, all of one dtype."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_decay: Tensor, S: Tensor
    ) -> tuple[Tensor, Tensor]:
        (B, H, T, K), V = q.shape, v.shape[3]
        flops.count("delta_rule", 8 * q.numel() * V)
        kept, o = q.new_empty(B, H, -(-T // LENGTH) + 1, K, V), q.new_empty(B, T, H, V)
        kept[:, :, 0] = S
        x = Steps(*(x.transpose(1, 2).contiguous() for x in (q, k, v, a, b, log_decay)))
        run(_forward, B * H, x, kept, o)
        ctx.save_for_backward(*x, kept)
        return o.transpose(1, 2), kept[:, :, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_S: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, kept = ctx.saved_tensors
        flops.count("delta_rule", 16 * inputs[0].numel() * kept.shape[-1])
        G, gradients = d_S.clone(memory_format=torch.contiguous_format), [torch.empty_like(x) for x in inputs]
        run(_backward, kept.shape[0] * kept.shape[1], Steps(*inputs), kept, d_o.transpose(1, 2), G, Steps(*gradients))
        return *(x.transpose(1, 2) for x in gradients), G


dplr = CompiledDPLR.apply


@loop
def _forward(start, stop, x, kept, o):  # type: ignore[no-untyped-def]
    """Work items are heads of rows."""
    _, T, H, K = x.q.shape
    V = x.v.shape[3]
    w, r, o_ = np.empty(K, o.dtype), np.empty(V, o.dtype), np.empty(V, o.dtype)
    for item in range(start, stop):
        n, h = item // H, item % H
        S = kept[n, h, 0].copy()
        for t in range(T):
            at = n, t, h
            q, k, v, a, b = x.q[at], x.k[at], x.v[at], x.a[at], x.b[at]
            exps(x.log_decay[at], w)
            r[:] = 0
            o_[:] = 0
            for i in range(K):
                _read(S[i], a[i], r)
            for i in range(K):
                _update(S[i], w[i], b[i], k[i], r, v, S[i])
                _read(S[i], q[i], o_)
            copy(o_, o[at])
            if (t + 1) % LENGTH == 0 or t == T - 1:
                kept[n, h, t // LENGTH + 1] = S


@loop
def _backward(start, stop, x, kept, d_o, d_S, d):  # type: ignore[no-untyped-def]
    (_, T, H, K), V, kind = x.q.shape, x.v.shape[3], kept.dtype
    states, rs, ws = np.empty((LENGTH + 1, K, V), kind), np.empty((LENGTH, V), kind), np.empty((LENGTH, K), kind)
    d_r, d_v = np.empty(V, kind), np.empty(V, kind)
    for item in range(start, stop):
        n, h = item // H, item % H
        G = d_S[n, h].copy()
        for span in range(-(-T // LENGTH) - 1, -1, -1):
            first = span * LENGTH
            steps = min(LENGTH, T - first)
            states[0] = kept[n, h, span]
            for j in range(steps):
                at = n, first + j, h
                k, v, a, b, r = x.k[at], x.v[at], x.a[at], x.b[at], rs[j]
                exps(x.log_decay[at], ws[j])
                r[:] = 0
                for i in range(K):
                    _read(states[j, i], a[i], r)
                for i in range(K):
                    _update(states[j, i], ws[j, i], b[i], k[i], r, v, states[j + 1, i])
            for j in range(steps - 1, -1, -1):
                at = n, first + j, h
                q, k, v, a, b, slope = x.q[at], x.k[at], x.v[at], x.a[at], x.b[at], d_o[at]
                d_q, d_k, d_a, d_b, d_w = d.q[at], d.k[at], d.a[at], d.b[at], d.log_decay[at]
                d_r[:] = 0
                d_v[:] = 0
                for i in range(K):
                    d_q[i], d_k[i], d_b[i], d_w[i] = _write_backward(
                        G[i], states[j, i], states[j + 1, i], q[i], k[i], b[i], v, slope, rs[j], d_v, d_r
                    )
                    d_w[i] *= ws[j, i]
                for i in range(K):
                    d_a[i] = _read_backward(G[i], states[j, i], ws[j, i], a[i], d_r)
                copy(d_v, d.v[at])
        d_S[n, h] = G


@inlined
def _read(S, x, y):  # type: ignore[no-untyped-def]
    for j in range(len(y)):
        y[j] += x * S[j]


@inlined
def _update(S, w, b, k, r, v, after):  # type: ignore[no-untyped-def]
    for j in range(len(r)):
        after[j] = w * S[j] + b * r[j] + k * v[j]


@inlined
def _write_backward(G, before, after, q, k, b, v, d_o, r, d_v, d_r):  # type: ignore[no-untyped-def]
    d_q = d_k = d_b = d_w = G.dtype.type(0)
    for j in range(len(d_r)):
        g = G[j] + q * d_o[j]
        G[j] = g
        d_q += after[j] * d_o[j]
        d_k += g * v[j]
        d_b += g * r[j]
        d_w += g * before[j]
        d_v[j] += k * g
        d_r[j] += b * g
    return d_q, d_k, d_b, d_w


@inlined
def _read_backward(G, before, w, a, d_r):  # type: ignore[no-untyped-def]
    d_a = G.dtype.type(0)
    for j in range(len(d_r)):
        d_a += before[j] * d_r[j]
        G[j] = w * G[j] + a * d_r[j]
    return d_a
