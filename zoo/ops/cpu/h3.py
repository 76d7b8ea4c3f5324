"""H3 channel by channel: the shift model in a loop over its taps, the diagonal one in chunks of products.

Within a chunk of C steps, with x the state before it and K_l = 2 Re Σ_n c_n a_n^l, D added to K_0,

    o_t = Σ_{s ≤ t} K_{t−s} u_s + 2 Re Σ_n c_n a_n^{t+1} x^n,    x^n ← a_n^C x^n + Σ_s a_n^{C−1−s} u_s

which are three products for each channel, of all its chunks: with the Toeplitz matrix of K, with what is read of states
and with what is written into them, complex numbers as rows of real parts beside imaginary ones.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.bfloat16 import narrowed, widened
from zoo.ops.cpu.jit import copy, inlined, loop
from zoo.ops.cpu.matmul import aligned_zeros
from zoo.ops.cpu.simd import broadcast, lanes, load, load_partial, prefetch, store, store_partial, sum_lanes
from zoo.ops.cpu.threads import once_differentiable, run
from zoo.ops.long_convolution import skipping

CHUNK = 32
"""Steps of a chunk, at most: longer ones have larger matrices, shorter ones more states."""
AHEAD = 4
"""Chunks between one whose state is worked on and one that is fetched."""
TOGETHER = 4
"""Vectors of steps, or taps, that are summed side by side."""


def h3(features: Tensor, bias: Tensor, w: Tensor, c: Tensor, log_a: Tensor, skip: Tensor) -> Tensor:
    """As `naive.h3`; all but the features in the wider dtype that is computed in."""
    features, bias, w = (x.contiguous() for x in (features, bias, w))
    return CompiledH3.apply(features, bias, w, *_matrices(c, log_a, skip, min(CHUNK, features.shape[-1])))


def _matrices(c: Tensor, log_a: Tensor, skip: Tensor, C: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each channel, K's Toeplitz matrix (C, C), what is read and written (C, 2 N), and a^C (2 N)."""
    doublings = max(1, (C - 1).bit_length())
    exponents = torch.tensor([C, *(1 << i for i in range(doublings))])[:, None]
    size, angle = (x.double()[:, None] * exponents for x in (log_a.real, log_a.imag))  # high powers need the digits
    last, *doubled = torch.polar(size.exp(), angle).to(c.dtype).split(1, dim=1)
    a = torch.ones_like(last)  # the powers a^0, a^1, … along axis 1
    for power in doubled:
        a = torch.cat([a, a * power], dim=1)
    a, c = a[:, :C], c[:, None]
    K = skipping(2 * (a @ c.mT).real[..., 0], skip)
    toeplitz = F.pad(K, (C - 1, 0)).unfold(1, C, 1).flip(1)  # K_{t−s} in row s
    read, written = 2 * (c * doubled[0]) * a, a.flip(1)
    reads, writes = torch.cat([read.real, -read.imag], dim=2), torch.cat([written.real, written.imag], dim=2)
    return toeplitz, reads, writes, torch.cat([last.real, last.imag], dim=2)[:, 0]


class CompiledH3(torch.autograd.Function):
    """y from features, their bias, taps, and `_matrices`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, bias: Tensor, w: Tensor, *matrices: Tensor) -> Tensor:
        q, k, v = features
        toeplitz, reads, writes, kept = matrices
        (D, B, T), C = q.shape, toeplitz.shape[1]
        flops.count("short_convolution", 2 * q.numel() * w.shape[1])
        N = -(-T // C)
        u, shifted = w.new_empty(D, B * N, C), w.new_empty(D, B, T)
        run(_shift, D, k, v, bias, w, shifted, u.view(D, B, -1))
        before, o = u @ writes, u @ toeplitz
        states = before.view(D, B, N, -1)
        run(_carry, D, kept, states, states, kept, False)
        o.baddbmm_(before, reads.mT)
        y = torch.empty_like(q)
        run(_gate, D * B, q, bias, o.view(D, B, -1), y)
        ctx.save_for_backward(features, bias, w, *matrices, shifted, u, before, o)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        features, bias, w, toeplitz, reads, writes, kept, shifted, u, before, o = ctx.saved_tensors
        q, k, v = features
        (D, B), N = q.shape[:2], u.shape[1] // q.shape[1]
        flops.count("short_convolution", 4 * q.numel() * w.shape[1])
        dq, dk, dv = dfeatures = torch.empty_like(features)
        do, dbias, dbias_q = torch.empty_like(o), torch.empty_like(bias), w.new_empty(D, B)
        run(_gate_back, D * B, dy, q, bias, o.view(D, B, -1), dq, do.view(D, B, -1), dbias_q)
        after, dkept = do @ reads, torch.empty_like(kept)
        run(_carry, D, kept, after.view(D, B, N, -1), before.view(D, B, N, -1), dkept, True)
        du, dw = (do @ toeplitz.mT).baddbmm_(after, writes.mT), torch.empty_like(w)
        run(_shift_back, D, k, v, bias, w, shifted, du.view(D, B, -1), dk, dv, dw, dbias)
        dbias[0] = dbias_q.sum(1)
        return dfeatures, dbias, dw, u.mT @ do, do.mT @ before, u.mT @ after, dkept


@inlined
def _padded(T, W, kind):  # type: ignore[no-untyped-def]
    """Zeros for T steps in whole blocks of vectors, and room for as many behind them as taps reach."""
    block = TOGETHER * lanes(kind)
    return np.zeros(-(-T // block) * block + W + TOGETHER, kind.dtype)


@inlined
def _correlate(x, taps, T, y):  # type: ignore[no-untyped-def]
    """y_t = Σ_j taps_j x_{t+j} for t < T, and beyond it to the end of a block."""
    n = lanes(x)
    for t in range(0, T, TOGETHER * n):
        y0 = y1 = y2 = y3 = broadcast(x.dtype.type(0))
        for j in range(len(taps)):
            tap, at = broadcast(taps[j]), t + j
            y0 = y0 + tap * load(x, at)
            y1 = y1 + tap * load(x, at + n)
            y2 = y2 + tap * load(x, at + 2 * n)
            y3 = y3 + tap * load(x, at + 3 * n)
        store(y0, y, t)
        store(y1, y, t + n)
        store(y2, y, t + 2 * n)
        store(y3, y, t + 3 * n)


@inlined
def _weigh(slopes, x, T, sums):  # type: ignore[no-untyped-def]
    """sums_j += Σ_{t<T} slopes_t x_{t+j}, a vector of sums each. Behind T slopes are zeros."""
    n = lanes(x)
    for s in range(0, len(sums), TOGETHER * n):
        j = s // n
        s0, s1, s2, s3 = load(sums, s), load(sums, s + n), load(sums, s + 2 * n), load(sums, s + 3 * n)
        for t in range(0, T, n):
            slope, at = load(slopes, t), t + j
            s0 = s0 + slope * load(x, at)
            s1 = s1 + slope * load(x, at + 1)
            s2 = s2 + slope * load(x, at + 2)
            s3 = s3 + slope * load(x, at + 3)
        store(s0, sums, s)
        store(s1, sums, s + n)
        store(s2, sums, s + 2 * n)
        store(s3, sums, s + 3 * n)


@loop
def _shift(start, stop, k, v, bias, w, shifted, u):  # type: ignore[no-untyped-def]
    """Work items are channels. The shift model's output, and u, followed by zeros to the end of the last chunk."""
    (_, B, T), W = k.shape, w.shape[1]
    x, y = _padded(T, W, w), _padded(T, 0, w)
    for d in range(start, stop):
        for b in range(B):
            k_, v_, kept, out, now = k[d, b], v[d, b], shifted[d, b], u[d, b], x[W - 1 :]
            for t in range(T):
                now[t] = widened(k_[t]) + bias[1, d]
            prefetch(v, (d * B + b) * T, T)
            prefetch(shifted, (d * B + b) * T, T)
            prefetch(u, (d * B + b) * u.shape[2], T)
            _correlate(x, w[d], T, y)
            copy(y[:T], kept)
            for t in range(T):
                out[t] = y[t] * (widened(v_[t]) + bias[2, d])
            out[T:] = 0


@loop
def _shift_back(start, stop, k, v, bias, w, shifted, du, dk, dv, dw, dbias):  # type: ignore[no-untyped-def]
    (_, B, T), W, n = k.shape, w.shape[1], lanes(w)
    x, slopes, y = _padded(T, W, w), _padded(T, W, w), _padded(T, 0, w)
    back, sums = np.empty(W, w.dtype), np.empty(-(-W // TOGETHER) * TOGETHER * n, w.dtype)
    for d in range(start, stop):
        sums[:], of_k, of_v = 0, w.dtype.type(0), w.dtype.type(0)
        copy(w[d, ::-1], back)
        for b in range(B):
            k_, v_, du_, dk_, dv_, now, kept = k[d, b], v[d, b], du[d, b], dk[d, b], dv[d, b], x[W - 1 :], shifted[d, b]
            for t in range(T):
                now[t] = widened(k_[t]) + bias[1, d]
            for t in range(T):
                y[t] = kept[t] * du_[t]
                of_v += y[t]
            for t in range(T):
                dv_[t] = narrowed(y[t], dv_)
            for t in range(T):
                slopes[t] = du_[t] * (widened(v_[t]) + bias[2, d])
            _correlate(slopes, back, T, y)
            for t in range(T):
                of_k += y[t]
            for t in range(T):
                dk_[t] = narrowed(y[t], dk_)
            _weigh(slopes, x, T, sums)
        for j in range(W):
            dw[d, j] = sum_lanes(load(sums, j * n))
        dbias[1, d], dbias[2, d] = of_k, of_v


@loop
def _carry(start, stop, a, states, before, da, back):  # type: ignore[no-untyped-def]
    """Work items are channels. What chunks add to states becomes the states before them, with a = a^C; backward, what
    they read of states becomes the gradients of the states after them, and da is a's."""
    _, B, N, M = states.shape
    M, L = M // 2, lanes(states)
    size, sign = -(-M // L) * L, states.dtype.type(-1 if back else 1)
    x_re, x_im = aligned_zeros(size, states), aligned_zeros(size, states)
    a_re, a_im = aligned_zeros(size, states), aligned_zeros(size, states)
    da_re, da_im = aligned_zeros(size, states), aligned_zeros(size, states)
    for d in range(start, stop):
        da_re[:], da_im[:] = 0, 0
        copy(a[d, :M], a_re)
        copy(sign * a[d, M:], a_im)
        for b in range(B):
            x_re[:], x_im[:] = 0, 0
            for n in range(N):
                at, ahead = ((d * B + b) * N + (N - 1 - n if back else n)) * 2 * M, AHEAD * 2 * M
                prefetch(states, at - ahead if back else at + ahead, 2 * M)
                if back:
                    prefetch(before, at - ahead, 2 * M)
                for c in range(0, M, L):
                    re, im, left = at + c, at + M + c, M - c
                    r, j, of_re, of_im = load(x_re, c), load(x_im, c), load(a_re, c), load(a_im, c)
                    if back:
                        was_re, was_im = load_partial(before, re, left), load_partial(before, im, left)
                        store(load(da_re, c) + r * was_re + j * was_im, da_re, c)
                        store(load(da_im, c) + j * was_re - r * was_im, da_im, c)
                    store(of_re * r - of_im * j + load_partial(states, re, left), x_re, c)
                    store(of_re * j + of_im * r + load_partial(states, im, left), x_im, c)
                    store_partial(r, states, re, left)
                    store_partial(j, states, im, left)
        if back:
            copy(da_re, da[d, :M])
            copy(da_im, da[d, M:])


@loop
def _gate(start, stop, q, bias, o, y):  # type: ignore[no-untyped-def]
    """Work items are channels of a sequence."""
    _, B, T = q.shape
    for item in range(start, stop):
        q_, o_, y_ = q[item // B, item % B], o[item // B, item % B], y[item // B, item % B]
        for t in range(T):
            y_[t] = narrowed((widened(q_[t]) + bias[0, item // B]) * o_[t], y_)


@loop
def _gate_back(start, stop, dy, q, bias, o, dq, do, dbias):  # type: ignore[no-untyped-def]
    _, B, T = q.shape
    for item in range(start, stop):
        d, b = item // B, item % B
        dy_, q_, o_, dq_, do_, total = dy[d, b], q[d, b], o[d, b], dq[d, b], do[d, b], bias.dtype.type(0)
        for t in range(T):
            total += widened(dy_[t]) * o_[t]
        for t in range(T):
            dq_[t] = narrowed(widened(dy_[t]) * o_[t], dq_)
        for t in range(T):
            do_[t] = widened(dy_[t]) * (widened(q_[t]) + bias[0, d])
        dbias[d, b] = total
        do_[T:] = 0
