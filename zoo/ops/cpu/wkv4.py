"""WKV as a compiled loop: per channel the three numbers p, q, o stay in registers or L1 while time goes by.

The forward pass keeps p, q, o at every LENGTH-th step alone. The backward pass goes through those spans from the last
to the first: it runs one forward again, keeping what came before each of its steps, then runs it backward. With e the
factors of `naive.wkv`, and g the gradient of the (p, q) after a step in units of e^o:

    dnum = dy / den,    dden = −dnum y,    g_before = a g + e_old (dnum, dden)
    dk = e_new (dnum v + dden) + b (g_p v + g_q),    dv = e_new dnum + b g_p,    dw += a (g_p p + g_q q)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import exp, inlined, loop
from zoo.ops.cpu.threads import run

LENGTH = 64
"""Steps between two kept states."""
CHANNELS = 64
"""Channels one call of a loop takes through time together."""


class CompiledWKV(torch.autograd.Function):
    """`naive.wkv` on float32 or float64 tensors of a CPU: y, p, q, o from w, u, k, v, p0, q0, o0 and mask."""

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, u: Tensor, k: Tensor, v: Tensor, p0: Tensor, q0: Tensor, o0: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        flops.count("wkv4", 4 * k.numel())
        B, T, C = k.shape
        kept = torch.empty(B, -(-T // LENGTH) + 1, 3, C, dtype=k.dtype)
        kept[:, 0] = torch.stack([p0, q0, o0], dim=1)
        y = torch.empty(B, T, C, dtype=k.dtype)
        valid = _valid(mask, B, T)
        inputs = [w, u, k, v, valid, kept, y]
        run(_forward, B * -(-C // CHANNELS), *inputs)
        ctx.save_for_backward(w, u, k, v, valid, kept, y)
        p, q, o = kept[:, -1].clone().unbind(1)
        ctx.mark_non_differentiable(o)
        return y, p, q, o

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dp: Tensor, dq: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        w, u, k, v, valid, kept, y = ctx.saved_tensors
        flops.count("wkv4", 8 * y.numel())
        B, _, C = k.shape
        dk, dv = torch.empty_like(y), torch.empty_like(y)
        dw, du = torch.zeros(B, C, dtype=y.dtype), torch.zeros(B, C, dtype=y.dtype)
        g = torch.stack([dp, dq], dim=1)
        arrays = [w, u, k, v, valid, kept, y, dy, g, dk, dv, dw, du]
        run(_backward, B * -(-C // CHANNELS), *arrays)
        return dw.sum(0), du.sum(0), dk, dv, g[:, 0], g[:, 1], None, None


def _valid(mask: Tensor | None, B: int, T: int) -> Tensor:
    return torch.ones(B, T, dtype=torch.bool) if mask is None else mask.contiguous()


@loop
def _forward(start, stop, w, u, k, v, valid, kept, y):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (b, block) takes the channels of a block through all steps of row b."""
    _, T, C = k.shape
    blocks = -(-C // CHANNELS)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * CHANNELS
        last = min(first + CHANNELS, C)
        w_, u_ = w[first:last], u[first:last]
        p, q, o = kept[b, 0, 0, first:last].copy(), kept[b, 0, 1, first:last].copy(), kept[b, 0, 2, first:last].copy()
        for t in range(T):
            k_, v_ = k[b, t, first:last], v[b, t, first:last]
            _read(u_, k_, v_, p, q, o, y[b, t, first:last])
            if valid[b, t]:
                _update(w_, k_, v_, p, q, o, p, q, o)
            if (t + 1) % LENGTH == 0 or t == T - 1:
                kept[b, t // LENGTH + 1, 0, first:last] = p
                kept[b, t // LENGTH + 1, 1, first:last] = q
                kept[b, t // LENGTH + 1, 2, first:last] = o


@inlined
def _read(u, k, v, p, q, o, y):  # type: ignore[no-untyped-def]
    for c in range(len(y)):
        bonus = u[c] + k[c]
        top = max(o[c], bonus)
        old, new = exp(o[c] - top), exp(bonus - top)
        y[c] = (old * p[c] + new * v[c]) / (old * q[c] + new)


@inlined
def _update(w, k, v, p, q, o, p_after, q_after, o_after):  # type: ignore[no-untyped-def]
    for c in range(len(w)):
        top = max(w[c] + o[c], k[c])
        a, b = exp(w[c] + o[c] - top), exp(k[c] - top)
        p_after[c] = a * p[c] + b * v[c]
        q_after[c] = a * q[c] + b
        o_after[c] = top


@loop
def _backward(start, stop, w, u, k, v, valid, kept, y, dy, g, dk, dv, dw, du):  # type: ignore[no-untyped-def]
    _, T, C = k.shape
    blocks = -(-C // CHANNELS)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * CHANNELS
        last = min(first + CHANNELS, C)
        n = last - first
        ps, qs, os = np.empty((LENGTH, n), k.dtype), np.empty((LENGTH, n), k.dtype), np.empty((LENGTH, n), k.dtype)
        w_, u_ = w[first:last], u[first:last]
        gp, gq = g[b, 0, first:last].copy(), g[b, 1, first:last].copy()
        dw_, du_ = np.zeros(n, k.dtype), np.zeros(n, k.dtype)
        dk_, dv_ = np.empty(n, k.dtype), np.empty(n, k.dtype)
        for span in range(-(-T // LENGTH) - 1, -1, -1):
            origin = span * LENGTH
            steps = min(LENGTH, T - origin)
            ps[0], qs[0], os[0] = (
                kept[b, span, 0, first:last],
                kept[b, span, 1, first:last],
                kept[b, span, 2, first:last],
            )
            for j in range(steps - 1):
                t = origin + j
                if valid[b, t]:
                    k_, v_ = k[b, t, first:last], v[b, t, first:last]
                    _update(w_, k_, v_, ps[j], qs[j], os[j], ps[j + 1], qs[j + 1], os[j + 1])
                else:
                    ps[j + 1], qs[j + 1], os[j + 1] = ps[j], qs[j], os[j]
            for j in range(steps - 1, -1, -1):
                t = origin + j
                k_, v_ = k[b, t, first:last], v[b, t, first:last]
                if valid[b, t]:
                    _update_backward(w_, k_, v_, ps[j], qs[j], os[j], gp, gq, dk_, dv_, dw_)
                else:
                    dk_[:] = 0
                    dv_[:] = 0
                y_, dy_ = y[b, t, first:last], dy[b, t, first:last]
                _read_backward(u_, k_, v_, ps[j], qs[j], os[j], y_, dy_, gp, gq, dk_, dv_, du_)
                dk[b, t, first:last], dv[b, t, first:last] = dk_, dv_
        g[b, 0, first:last], g[b, 1, first:last] = gp, gq
        dw[b, first:last], du[b, first:last] = dw_, du_


@inlined
def _update_backward(w, k, v, p, q, o, gp, gq, dk, dv, dw):  # type: ignore[no-untyped-def]
    for c in range(len(w)):
        top = max(w[c] + o[c], k[c])
        a, b = exp(w[c] + o[c] - top), exp(k[c] - top)
        dk[c] = b * (gp[c] * v[c] + gq[c])
        dv[c] = b * gp[c]
        dw[c] += a * (gp[c] * p[c] + gq[c] * q[c])
        gp[c] *= a
        gq[c] *= a


@inlined
def _read_backward(u, k, v, p, q, o, y, dy, gp, gq, dk, dv, du):  # type: ignore[no-untyped-def]
    for c in range(len(u)):
        bonus = u[c] + k[c]
        top = max(o[c], bonus)
        old, new = exp(o[c] - top), exp(bonus - top)
        dnum = dy[c] / (old * q[c] + new)
        dden = -dnum * y[c]
        dbonus = (dnum * v[c] + dden) * new
        gp[c] += dnum * old
        gq[c] += dden * old
        dk[c] += dbonus
        dv[c] += dnum * new
        du[c] += dbonus
