"""sLSTM as a compiled loop: two rows of the batch share what one step reads of a head's R.

With g the gradient of what stands behind it, in a step backward

    dc += dh σ(o) / n,    dn −= dh h / n,    do = dh h (1 − σ(o)),    dz = dc I (1 − tanh² z)
    di = I (dc tanh z + dn),    df = F (dc c_before + dn n_before) (1 − σ(f))
    dh_before = Rᵀ [di, df, dz, do],    dc_before = F dc,    dn_before = F dn

and R's gradient is one matrix product over all steps, once the loop has left every di, df, dz and do behind.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import copy, copy_rows, exp, inlined, log1p, loop, maximum
from zoo.ops.cpu.threads import once_differentiable, run
from zoo.ops.slstm.naive import SLSTMState

UNROLLED = 8
"""Rows of a matrix that one pass over a product's sums adds up."""
FACTORS = 5
"""Numbers a unit keeps of each step for the backward pass, beside c and n: F, I, tanh z, σ(o) and 1 − σ(f)."""


def slstm(
    i: Tensor, f: Tensor, z: Tensor, o: Tensor, R: Tensor, b: Tensor, state: SLSTMState, mask: Tensor | None
) -> tuple[Tensor, SLSTMState]:
    """`naive.slstm` on float32 or float64 tensors."""
    valid = i.new_ones(i.shape[1:3], dtype=torch.bool) if mask is None else mask
    y, c, n, m = CompiledSLSTM.apply(i, f, z, o, R, b, *state, valid)
    return y, (y[:, -1], c, n, m)


class Gates(NamedTuple):
    i: Tensor  # (H, B, T, d)
    f: Tensor
    z: Tensor
    o: Tensor
    weights: Tensor  # (H, d, 4 d): from each unit to all gates of its head
    bias: Tensor  # (H, 4 d)
    valid: Tensor  # (B, T)


class Kept(NamedTuple):
    factors: Tensor  # (H, B, T, FACTORS · d)
    cn: Tensor  # (H, B, T + 1, 2 d): c and n before every step, and after the last


class CompiledSLSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        i, f, z, o, R, b, h, c, n, m, valid = given
        H, B, T, d = i.shape
        flops.count("slstm", 2 * B * T * R.numel())
        kept = Kept(factors=i.new_empty(H, B, T, FACTORS * d), cn=i.new_empty(H, B, T + 1, 2 * d))
        kept.cn[:, :, 0] = torch.cat([c, n], dim=-1).transpose(0, 1)
        y, m = i.new_empty(B, T, H, d), m.clone(memory_format=torch.contiguous_format)
        gates = Gates(i=i, f=f, z=z, o=o, weights=R.flatten(1, 2).mT, bias=b.flatten(1), valid=valid)
        run(_forward, H * -(-B // 2), gates, h, m, kept, y)
        ctx.save_for_backward(R, h, valid, y, *kept)
        ctx.mark_non_differentiable(m)
        c, n = kept.cn[:, :, -1].transpose(0, 1).chunk(2, dim=-1)
        return y, c.clone(), n.clone(), m

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dc: Tensor, dn: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        R, h, valid, y, *kept = ctx.saved_tensors
        (B, T, H, d) = y.shape
        flops.count("slstm", 2 * B * T * R.numel())  # torch sees the products of R's gradient itself
        d_gates, d_state = y.new_empty(H, B, T, 4 * d), torch.cat([torch.zeros_like(dc), dc, dn], dim=-1)
        run(_backward, H * -(-B // 2), R.flatten(1, 2), valid, Kept(*kept), y, dy, d_gates, d_state)
        before = torch.cat([h[:, None], y[:, :-1]], dim=1).flatten(0, 1).transpose(0, 1)  # (H, B T, d)
        dR, db = d_gates.flatten(1, 2).mT @ before, d_gates.sum((1, 2))
        return *d_gates.chunk(4, dim=-1), dR.view_as(R), db.unflatten(1, (4, d)), *d_state.chunk(3, dim=-1), None, None


@loop
def _forward(start, stop, gates, h0, m_last, kept, y):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (head, pair) takes two rows of the batch through all steps of a head.

    `m_last` holds m before the first step, and then that after the last.
    """
    _, B, T, d = gates.i.shape
    pairs, zero = -(-B // 2), m_last.dtype.type(0)
    M = np.full((-(-d // UNROLLED) * UNROLLED, 4 * d), zero)
    h, cn, m = np.full((2, len(M)), zero), np.full((2, 2 * d), zero), np.full((2, d), zero)
    sums, factors = np.full((2, 4 * d), zero), np.full(FACTORS * d, zero)
    for item in range(start, stop):
        k, first = item // pairs, item % pairs * 2
        rows = min(2, B - first)
        copy_rows(gates.weights[k], M[:d])
        h[:] = 0
        for r in range(rows):
            copy(h0[first + r, k], h[r])
            copy(kept.cn[k, first + r, 0], cn[r])
            copy(m_last[first + r, k], m[r])
        for t in range(T):
            copy(gates.bias[k], sums[0])
            copy(gates.bias[k], sums[1])
            _multiply(M, h, sums)
            for r in range(rows):
                row = first + r
                if gates.valid[row, t]:
                    given = gates.i[k, row, t], gates.f[k, row, t], gates.z[k, row, t], gates.o[k, row, t]
                    _step(given, sums[r], h[r], cn[r], m[r], factors)
                copy(factors, kept.factors[k, row, t])
                copy(cn[r], kept.cn[k, row, t + 1])
                copy(h[r], y[row, t, k])
        for r in range(rows):
            copy(m[r], m_last[first + r, k])


@inlined
def _multiply(M, x, y):  # type: ignore[no-untyped-def]
    """y += x M for two rows, UNROLLED rows of M at a time."""
    for j in range(0, len(M), UNROLLED):
        rows, x0, x1 = M[j : j + UNROLLED], x[0, j : j + UNROLLED], x[1, j : j + UNROLLED]
        for p in range(y.shape[1]):
            y0, y1 = y[0, p], y[1, p]
            for i in range(UNROLLED):
                y0 += x0[i] * rows[i, p]
                y1 += x1[i] * rows[i, p]
            y[0, p], y[1, p] = y0, y1


@inlined
def _step(given, sums, h, cn, m, factors):  # type: ignore[no-untyped-def]
    """`given` is what the input says to the four gates, `sums` what the bias and h before the step add."""
    (i_, f_, z_, o_), d = given, len(m)
    zero, one, two = m.dtype.type(0), m.dtype.type(1), m.dtype.type(2)
    for p in range(d):
        i, f, z, o = sums[p] + i_[p], sums[d + p] + f_[p], sums[2 * d + p] + z_[p], sums[3 * d + p] + o_[p]
        e = exp(-abs(f))
        larger = one / (one + e)  # of σ(f) and σ(−f)
        stays = min(f, zero) - log1p(e) + m[p]
        m[p] = maximum(stays, i)
        F, I_ = exp(stays - m[p]), exp(i - m[p])
        tanh, sigmoid = one - two / (exp(two * z) + one), one / (one + exp(-o))
        c, n = F * cn[p] + I_ * tanh, F * cn[d + p] + I_
        cn[p], cn[d + p], h[p] = c, n, sigmoid * c / n
        factors[p], factors[d + p], factors[2 * d + p], factors[3 * d + p] = F, I_, tanh, sigmoid
        factors[4 * d + p] = larger * e if f > zero else larger


@loop
def _backward(start, stop, R, valid, kept, y, dy, d_gates, d_state):  # type: ignore[no-untyped-def]
    """`d_state` (B, H, 3 d) holds the gradients of h, c and n after the last step, and then before the first."""
    B, T, _, d = y.shape
    pairs, zero = -(-B // 2), R.dtype.type(0)
    M = np.full((-(-4 * d // UNROLLED) * UNROLLED, d), zero)
    dh, d_cn, slopes = np.full((2, d), zero), np.full((2, 2 * d), zero), np.full((2, len(M)), zero)
    factors, before = np.full(FACTORS * d, zero), np.full(2 * d, zero)
    n, y_, dy_ = np.full(d, zero), np.full(d, zero), np.full(d, zero)
    for item in range(start, stop):
        k, first = item // pairs, item % pairs * 2
        rows = min(2, B - first)
        copy_rows(R[k], M[: 4 * d])
        slopes[:] = 0
        dh[:] = 0
        for r in range(rows):
            copy(d_state[first + r, k, :d], dh[r])
            copy(d_state[first + r, k, d:], d_cn[r])
        for t in range(T - 1, -1, -1):
            for r in range(rows):
                row = first + r
                copy(y[row, t, k], y_)
                copy(dy[row, t, k], dy_)
                if valid[row, t]:
                    copy(kept.factors[k, row, t], factors)
                    copy(kept.cn[k, row, t], before)
                    copy(kept.cn[k, row, t + 1, d:], n)
                    _step_backward(factors, before, n, y_, dy_, dh[r], d_cn[r], slopes[r])
                else:  # the state stayed, and this step shows its h
                    slopes[r, :] = 0
                    for p in range(d):
                        dh[r, p] += dy_[p]
                copy(slopes[r], d_gates[k, row, t])
            _multiply(M, slopes, dh)
        for r in range(rows):
            copy(dh[r], d_state[first + r, k, :d])
            copy(d_cn[r], d_state[first + r, k, d:])


@inlined
def _step_backward(factors, before, n, y, dy, dh, d_cn, slopes):  # type: ignore[no-untyped-def]
    """Leaves a `dh` of zero, to which Rᵀ slopes is to be added."""
    d = len(dh)
    one = dh.dtype.type(1)
    for p in range(d):
        F, I_, tanh, sigmoid = factors[p], factors[d + p], factors[2 * d + p], factors[3 * d + p]
        d_y = dh[p] + dy[p]
        d_read = d_y / n[p]
        dc, dn = d_cn[p] + d_read * sigmoid, d_cn[d + p] - d_read * y[p]
        slopes[p] = I_ * (dc * tanh + dn)
        slopes[d + p] = F * (dc * before[p] + dn * before[d + p]) * factors[4 * d + p]
        slopes[2 * d + p] = dc * I_ * (one - tanh * tanh)
        slopes[3 * d + p] = d_y * y[p] * (one - sigmoid)
        d_cn[p], d_cn[d + p], dh[p] = F * dc, F * dn, one - one
