"""WKV as a compiled loop: per channel the three numbers p, q, o stay in registers or L1 while time goes by.

The forward pass keeps p, q, o at every LENGTH-th step alone. The backward pass goes through those spans from the last
to the first: it runs one forward again, keeping what came before each of its steps, then runs it backward. With e the
factors of `naive.wkv`, and g the gradient of the (p, q) after a step in units of e^o:

    d_num = dy / den,    d_den = −d_num y,    g_before = a g + e_old (d_num, d_den)
    dk = e_new (d_num v + d_den) + b (g_p v + g_q),    dv = e_new d_num + b g_p,    dw += a (g_p p + g_q q)
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import copy, copy_rows, exp, inlined, loop, maximum
from zoo.ops.cpu.threads import once_differentiable, run

LENGTH = 64
"""Steps between two kept states."""
CHANNELS = 64
"""Channels one call of a loop takes through time together."""


def wkv(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, p: Tensor, q: Tensor, o: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y and the next p, q and o, on float32 or float64 tensors."""
    valid = torch.ones(k.shape[:2], dtype=torch.bool) if mask is None else mask
    y, p, q, o = CompiledWKV.apply(w, u, k, v, p, q, o, valid)
    return y, p, q, o


class Inputs(NamedTuple):
    w: Tensor  # (C,)
    u: Tensor
    k: Tensor  # (B, T, C)
    v: Tensor
    valid: Tensor  # (B, T)
    kept: Tensor  # (B, spans + 1, 3, C): p, q and o before every span, and after the last


class Gradients(NamedTuple):
    y: Tensor  # (B, T, C)
    k: Tensor
    v: Tensor
    wu: Tensor  # (B, 2, C)
    pq: Tensor  # (B, 2, C): after the last step, and then before the first


class CompiledWKV(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        w, u, k, v, p, q, o, valid = given
        flops.count("wkv4", 4 * k.numel())
        B, T, C = k.shape
        kept, y = k.new_empty(B, -(-T // LENGTH) + 1, 3, C), k.new_empty(B, T, C)
        kept[:, 0] = torch.stack([p, q, o], dim=1)
        x = Inputs(w=w, u=u, k=k, v=v, valid=valid, kept=kept)
        run(_forward, B * -(-C // CHANNELS), x, y)
        ctx.save_for_backward(*x, y)
        p, q, o = kept[:, -1].clone().unbind(1)
        ctx.mark_non_differentiable(o)
        return y, p, q, o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dp: Tensor, dq: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *given, y = ctx.saved_tensors
        flops.count("wkv4", 8 * y.numel())
        x, pq = Inputs(*given), torch.stack([dp, dq], dim=1)
        d = Gradients(y=dy, k=torch.empty_like(y), v=torch.empty_like(y), wu=torch.empty_like(pq), pq=pq)
        run(_backward, len(y) * -(-len(x.w) // CHANNELS), x, y, d)
        return *d.wu.sum(0), d.k, d.v, pq[:, 0], pq[:, 1], None, None


@loop
def _forward(start, stop, x, y):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (b, block) takes the channels of a block through all steps of row b."""
    _, T, C = y.shape
    blocks = -(-C // CHANNELS)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * CHANNELS
        last = min(first + CHANNELS, C)
        w, u, s = x.w[first:last], x.u[first:last], x.kept[b, 0, :, first:last].copy()
        for t in range(T):
            k, v = x.k[b, t, first:last], x.v[b, t, first:last]
            _read(u, k, v, s, y[b, t, first:last])
            if x.valid[b, t]:
                _update(w, k, v, s, s)
            if (t + 1) % LENGTH == 0 or t == T - 1:
                copy_rows(s, x.kept[b, t // LENGTH + 1, :, first:last])


@loop
def _backward(start, stop, x, y, d):  # type: ignore[no-untyped-def]
    _, T, C = y.shape
    blocks = -(-C // CHANNELS)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * CHANNELS
        last = min(first + CHANNELS, C)
        w, u, g = x.w[first:last], x.u[first:last], d.pq[b, :, first:last].copy()
        s, d_kv, d_wu = np.empty((LENGTH, 3, last - first), y.dtype), np.empty_like(g), np.zeros_like(g)
        for span in range(-(-T // LENGTH) - 1, -1, -1):
            origin = span * LENGTH
            steps = min(LENGTH, T - origin)
            copy_rows(x.kept[b, span, :, first:last], s[0])
            for j in range(steps - 1):
                if x.valid[b, origin + j]:
                    _update(w, x.k[b, origin + j, first:last], x.v[b, origin + j, first:last], s[j], s[j + 1])
                else:
                    copy_rows(s[j], s[j + 1])
            for j in range(steps - 1, -1, -1):
                t = origin + j
                k, v = x.k[b, t, first:last], x.v[b, t, first:last]
                d_kv[:] = 0
                if x.valid[b, t]:
                    _update_backward(w, k, v, s[j], g, d_kv, d_wu)
                _read_backward(u, k, v, s[j], y[b, t, first:last], d.y[b, t, first:last], g, d_kv, d_wu)
                copy(d_kv[0], d.k[b, t, first:last])
                copy(d_kv[1], d.v[b, t, first:last])
        copy_rows(g, d.pq[b, :, first:last])
        copy_rows(d_wu, d.wu[b, :, first:last])


@inlined
def _read(u, k, v, s, y):  # type: ignore[no-untyped-def]
    for c in range(len(y)):
        p, q, o, bonus = s[0, c], s[1, c], s[2, c], u[c] + k[c]
        top = maximum(o, bonus)
        old, new = exp(o - top), exp(bonus - top)
        y[c] = (old * p + new * v[c]) / (old * q + new)


@inlined
def _update(w, k, v, s, after):  # type: ignore[no-untyped-def]
    for c in range(len(w)):
        p, q, o = s[0, c], s[1, c], w[c] + s[2, c]
        top = maximum(o, k[c])
        a, b = exp(o - top), exp(k[c] - top)
        after[0, c] = a * p + b * v[c]
        after[1, c] = a * q + b
        after[2, c] = top


@inlined
def _update_backward(w, k, v, s, g, d_kv, d_wu):  # type: ignore[no-untyped-def]
    for c in range(len(w)):
        o, gp, gq = w[c] + s[2, c], g[0, c], g[1, c]
        top = maximum(o, k[c])
        a, b = exp(o - top), exp(k[c] - top)
        d_kv[0, c] = b * (gp * v[c] + gq)
        d_kv[1, c] = b * gp
        d_wu[0, c] += a * (gp * s[0, c] + gq * s[1, c])
        g[0, c] = a * gp
        g[1, c] = a * gq


@inlined
def _read_backward(u, k, v, s, y, dy, g, d_kv, d_wu):  # type: ignore[no-untyped-def]
    for c in range(len(u)):
        o, bonus = s[2, c], u[c] + k[c]
        top = maximum(o, bonus)
        old, new = exp(o - top), exp(bonus - top)
        d_num = dy[c] / (old * s[1, c] + new)
        d_den = -d_num * y[c]
        d_bonus = (d_num * v[c] + d_den) * new
        g[0, c] += d_num * old
        g[1, c] += d_den * old
        d_kv[0, c] += d_bonus
        d_kv[1, c] += d_num * new
        d_wu[1, c] += d_bonus
