"""sLSTM as a compiled loop: two rows of the batch share what one step reads of a head's R.

With g the gradient of what stands behind it, in a step backward

    dc += dh σ(o) / n,    dn −= dh h / n,    do = dh h (1 − σ(o)),    dz = dc I (1 − tanh² z)
    di = I (dc tanh z + dn),    df = F (dc c_before + dn n_before) (1 − σ(f))
    dh_before = Rᵀ [di, df, dz, do],    dc_before = F dc,    dn_before = F dn

and R's gradient is one matrix product over all steps, once the loop has left every di, df, dz and do behind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import exp, inlined, log1p, loop
from zoo.ops.cpu.threads import run

UNROLLED = 8
"""Rows of a matrix that one pass over a product's sums adds up."""
KEPT = 7
"""Numbers a unit keeps of each step for the backward pass: F, I, tanh z, σ(o), 1 − σ(f), c and n."""


class CompiledSLSTM(torch.autograd.Function):
    """`naive.slstm` on float32 or float64 tensors of a CPU: h and the last h, c, n, m from gates, R, b, state, mask."""

    @staticmethod
    def forward(
        ctx: Any,
        i: Tensor,
        f: Tensor,
        z: Tensor,
        o: Tensor,
        R: Tensor,
        b: Tensor,
        h0: Tensor,
        c0: Tensor,
        n0: Tensor,
        m0: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        H, B, T, d = i.shape
        flops.count("slstm", 2 * B * T * R.numel())
        y = i.new_empty(B, T, H, d)
        kept = i.new_empty(H, B, T, KEPT * d)
        state = torch.stack([h0, c0, n0, m0])
        valid = torch.ones(B, T, dtype=torch.bool) if mask is None else mask.contiguous()
        after = state.clone()
        # From each unit to all gates of its head: (H, d, 4 d).
        weights = R.flatten(1, 2).transpose(1, 2)
        arrays = [i, f, z, o, weights, b.flatten(1), valid, after, y, kept]
        run(_forward, H * -(-B // 2), *arrays)
        ctx.save_for_backward(R, valid, state, y, kept)
        h, c, n, m = after.unbind(0)
        ctx.mark_non_differentiable(m)
        return y, h, c, n, m

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor, dn: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        R, valid, state, y, kept = ctx.saved_tensors
        (B, T, H, d) = y.shape
        flops.count("slstm", 2 * B * T * R.numel())  # torch sees the products of R's gradient itself
        gates = [y.new_empty(H, B, T, d) for _ in range(4)]
        db = y.new_zeros(B, H, 4 * d)
        g = torch.stack([dh, dc, dn])
        arrays = [R.flatten(1, 2), valid, state, y, kept, dy, *gates, g, db]
        run(_backward, H * -(-B // 2), *arrays)
        before = torch.cat([state[0][:, None], y[:, :-1]], dim=1).flatten(0, 1).transpose(0, 1)  # (H, B T, d)
        dR = torch.stack([gate.flatten(1, 2).mT @ before for gate in gates], dim=1)
        return *gates, dR, db.sum(0).unflatten(-1, (4, d)), *g.unbind(0), None, None


@loop
def _forward(start, stop, i, f, z, o, weights, b, valid, state, y, kept):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (head, pair) takes two rows of the batch through all steps of a head.

    `state` holds the state before the first step, and then that after the last.
    """
    _, B, T, d = i.shape
    pairs = -(-B // 2)
    M = np.zeros((-(-d // UNROLLED) * UNROLLED, 4 * d), i.dtype)
    h = np.zeros((2, len(M)), i.dtype)
    c, n, m = np.zeros((2, d), i.dtype), np.zeros((2, d), i.dtype), np.zeros((2, d), i.dtype)
    sums, keep = np.zeros((2, 4 * d), i.dtype), np.zeros(KEPT * d, i.dtype)
    y0, y1 = np.zeros(4 * d, i.dtype), np.zeros(4 * d, i.dtype)
    for item in range(start, stop):
        k, first = item // pairs, item % pairs * 2
        rows = min(2, B - first)
        M[:d] = weights[k]
        h[:] = 0
        for r in range(rows):
            h[r, :d], c[r], n[r], m[r] = (
                state[0, first + r, k],
                state[1, first + r, k],
                state[2, first + r, k],
                state[3, first + r, k],
            )
        for t in range(T):
            _copy(b[k], y0)
            _copy(b[k], y1)
            _multiply(M, h[0], h[1], y0, y1)
            _copy(y0, sums[0])
            _copy(y1, sums[1])
            for r in range(rows):
                row = first + r
                if valid[row, t]:
                    _add(i[k, row, t], f[k, row, t], z[k, row, t], o[k, row, t], sums[r])
                    _step(sums[r], h[r], c[r], n[r], m[r], keep)
                _copy(c[r], keep[5 * d :])
                _copy(n[r], keep[6 * d :])
                _copy(keep, kept[k, row, t])
                _copy(h[r], y[row, t, k])
        for r in range(rows):
            row = first + r
            state[0, row, k], state[1, row, k], state[2, row, k], state[3, row, k] = h[r, :d], c[r], n[r], m[r]


@inlined
def _multiply(M, x0, x1, y0, y1):  # type: ignore[no-untyped-def]
    """y += x M for two rows, UNROLLED rows of M at a time."""
    for j in range(0, len(M), UNROLLED):
        m0, m1, m2, m3, m4, m5, m6, m7 = M[j], M[j + 1], M[j + 2], M[j + 3], M[j + 4], M[j + 5], M[j + 6], M[j + 7]
        a0, a1, a2, a3, a4, a5, a6, a7 = (
            x0[j], x0[j + 1], x0[j + 2], x0[j + 3], x0[j + 4], x0[j + 5], x0[j + 6], x0[j + 7]
        )  # fmt: skip
        b0, b1, b2, b3, b4, b5, b6, b7 = (
            x1[j], x1[j + 1], x1[j + 2], x1[j + 3], x1[j + 4], x1[j + 5], x1[j + 6], x1[j + 7]
        )  # fmt: skip
        for p in range(len(y0)):
            y0[p] += (
                (a0 * m0[p] + a1 * m1[p])
                + (a2 * m2[p] + a3 * m3[p])
                + (a4 * m4[p] + a5 * m5[p])
                + (a6 * m6[p] + a7 * m7[p])
            )
            y1[p] += (
                (b0 * m0[p] + b1 * m1[p])
                + (b2 * m2[p] + b3 * m3[p])
                + (b4 * m4[p] + b5 * m5[p])
                + (b6 * m6[p] + b7 * m7[p])
            )


@inlined
def _copy(x, y):  # type: ignore[no-untyped-def]
    """As far as the shorter of them goes: numba's own assignment of slices takes longer than all else in a step."""
    for p in range(min(len(x), len(y))):
        y[p] = x[p]


@inlined
def _add(i, f, z, o, sums):  # type: ignore[no-untyped-def]
    d = len(i)
    for p in range(d):
        sums[p] += i[p]
        sums[d + p] += f[p]
        sums[2 * d + p] += z[p]
        sums[3 * d + p] += o[p]


@inlined
def _step(sums, h, c, n, m, keep):  # type: ignore[no-untyped-def]
    d = len(c)
    zero, one, two = c.dtype.type(0), c.dtype.type(1), c.dtype.type(2)
    for p in range(d):
        i, f, z, o = sums[p], sums[d + p], sums[2 * d + p], sums[3 * d + p]
        e = exp(-abs(f))
        larger = one / (one + e)  # of σ(f) and σ(−f)
        stays = min(f, zero) - log1p(e) + m[p]
        m[p] = max(stays, i)
        F, I_ = exp(stays - m[p]), exp(i - m[p])
        tanh, sigmoid = one - two / (exp(two * z) + one), one / (one + exp(-o))
        c[p] = F * c[p] + I_ * tanh
        n[p] = F * n[p] + I_
        h[p] = sigmoid * c[p] / n[p]
        keep[p], keep[d + p], keep[2 * d + p], keep[3 * d + p] = F, I_, tanh, sigmoid
        keep[4 * d + p] = larger * e if f > zero else larger


@loop
def _backward(start, stop, R, valid, state, y, kept, dy, di, df, dz, do, g, db):  # type: ignore[no-untyped-def]
    """`g` holds the gradients of the h, c and n after the last step, and then of those before the first."""
    _, B, T, d = di.shape
    pairs = -(-B // 2)
    M = np.zeros((-(-4 * d // UNROLLED) * UNROLLED, d), R.dtype)
    dh, dc, dn = np.zeros((2, d), R.dtype), np.zeros((2, d), R.dtype), np.zeros((2, d), R.dtype)
    keep, before, held = np.zeros(KEPT * d, R.dtype), np.zeros(2 * d, R.dtype), np.zeros(3 * d, R.dtype)
    di_, df_, dz_, do_ = np.zeros(d, R.dtype), np.zeros(d, R.dtype), np.zeros(d, R.dtype), np.zeros(d, R.dtype)
    y_, dy_, dc_, dn_ = np.zeros(d, R.dtype), np.zeros(d, R.dtype), np.zeros(d, R.dtype), np.zeros(d, R.dtype)
    sums, total = np.zeros((2, len(M)), R.dtype), np.zeros((2, 4 * d), R.dtype)
    y0, y1 = np.zeros(d, R.dtype), np.zeros(d, R.dtype)
    for item in range(start, stop):
        k, first = item // pairs, item % pairs * 2
        rows = min(2, B - first)
        M[: 4 * d] = R[k]
        sums[:] = 0
        total[:] = 0
        for r in range(rows):
            dh[r], dc[r], dn[r] = g[0, first + r, k], g[1, first + r, k], g[2, first + r, k]
        for t in range(T - 1, -1, -1):
            y0[:] = 0
            y1[:] = 0
            for r in range(rows):
                row = first + r
                _copy(dy[row, t, k], dy_)
                _copy(y[row, t, k], y_)
                if valid[row, t]:
                    if t > 0:
                        _copy(kept[k, row, t - 1, 5 * d :], before)
                    else:
                        _copy(state[1, row, k], before)
                        _copy(state[2, row, k], before[d:])
                    _copy(kept[k, row, t], keep)
                    _copy(dh[r], held)
                    _copy(dc[r], held[d:])
                    _copy(dn[r], held[2 * d :])
                    _step_backward(keep, before, y_, dy_, held, dc_, dn_, di_, df_, dz_, do_)
                    _copy(dc_, dc[r])
                    _copy(dn_, dn[r])
                    _add(di_, df_, dz_, do_, total[r])
                else:  # the state stayed, and this step shows its h
                    stays = y0 if r == 0 else y1
                    for p in range(d):
                        stays[p] = dh[r, p] + dy_[p]
                    for gate in (di_, df_, dz_, do_):
                        gate[:] = 0
                _copy(di_, di[k, row, t])
                _copy(df_, df[k, row, t])
                _copy(dz_, dz[k, row, t])
                _copy(do_, do[k, row, t])
                _copy(di_, sums[r])
                _copy(df_, sums[r, d:])
                _copy(dz_, sums[r, 2 * d :])
                _copy(do_, sums[r, 3 * d :])
            _multiply(M, sums[0], sums[1], y0, y1)
            _copy(y0, dh[0])
            _copy(y1, dh[1])
        for r in range(rows):
            row = first + r
            g[0, row, k], g[1, row, k], g[2, row, k], db[row, k] = dh[r], dc[r], dn[r], total[r]


@inlined
def _step_backward(keep, before, y, dy, held, dc, dn, di, df, dz, do):  # type: ignore[no-untyped-def]
    """`held` are dh, dc and dn as they come from the step behind."""
    d = len(dc)
    one = dc.dtype.type(1)
    for p in range(d):
        F, I_, tanh, sigmoid, closed = keep[p], keep[d + p], keep[2 * d + p], keep[3 * d + p], keep[4 * d + p]
        dh = held[p] + dy[p]
        dread = dh / keep[6 * d + p]
        c, n = held[d + p] + dread * sigmoid, held[2 * d + p] - dread * y[p]
        di[p] = I_ * (c * tanh + n)
        df[p] = F * (c * before[p] + n * before[d + p]) * closed
        dz[p] = c * I_ * (one - tanh * tanh)
        do[p] = dh * y[p] * (one - sigmoid)
        dc[p] = F * c
        dn[p] = F * n
