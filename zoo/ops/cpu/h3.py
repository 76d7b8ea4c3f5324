"""H3 channel by channel: the shift model in a loop over its taps, the diagonal one in chunks of products.

Within a chunk of C steps, with x the state before it and K_l = 2 Re Σ_n c_n a_n^l, D added to K_0,

    o_t = Σ_{s ≤ t} K_{t−s} u_s + 2 Re Σ_n c_n a_n^{t+1} x^n,    x^n ← a_n^C x^n + Σ_s a_n^{C−1−s} u_s

which are three products for each channel, of all its chunks: with the Toeplitz matrix of K, with what is read of states
and with what is written into them, complex numbers as pairs of rows of real and imaginary parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.bfloat16 import narrowed, widened
from zoo.ops.cpu.jit import inlined, loop
from zoo.ops.cpu.matmul import aligned_zeros
from zoo.ops.cpu.simd import lanes, load, load_partial, prefetch, store, store_partial
from zoo.ops.cpu.threads import run

CHUNK = 32
"""Steps of a chunk, at most: longer ones have larger matrices, shorter ones more states."""
AHEAD = 4
"""Chunks between one whose state is worked on and one that is fetched."""
TAPS = 8
"""Taps that pass over a sequence together."""


def h3(features: Tensor, bias: Tensor, w: Tensor, c: Tensor, log_a: Tensor, skip: Tensor) -> Tensor:
    """As `naive.h3`; all but the features in the wider dtype that is computed in."""
    return CompiledH3.apply(features, bias, w, c, log_a, skip)


class CompiledH3(torch.autograd.Function):
    """As `naive.h3`; all but the features in the wider dtype that is computed in."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, bias: Tensor, w: Tensor, c: Tensor, log_a: Tensor, skip: Tensor) -> Tensor:
        q, k, v = features = features.contiguous()
        (D, B, T), M = q.shape, c.shape[1]
        flops.count("short_convolution", 2 * q.numel() * w.shape[1])
        C = min(CHUNK, T)
        N = -(-T // C)
        u, shifted = w.new_empty(D, B * N, C), w.new_empty(D, B, T)
        run(_shift, D, k, v, bias, w, shifted, u.view(D, B, -1))
        toeplitz, reads, writes, kept = (w.new_empty(D, *shape) for shape in ((C, C), (C, 2 * M), (C, 2 * M), (2 * M,)))
        parts = [torch.view_as_real(x.resolve_conj().contiguous()) for x in (c, log_a)]
        run(_systems, D, *parts, skip, toeplitz, reads, writes, kept)
        before, o = u @ writes, u @ toeplitz
        run(_carry, D * B, kept, before.view(D, B, N, -1))
        o.baddbmm_(before, reads.mT)
        y = torch.empty_like(q)
        run(_gate, D * B, q, bias, o.view(D, B, -1), y)
        ctx.save_for_backward(features, bias, w, *parts, shifted, u, toeplitz, reads, writes, kept, before, o)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        features, bias, w, c, log_a, shifted, u, toeplitz, reads, writes, kept, before, o = ctx.saved_tensors
        q, k, v = features
        (D, B), N = q.shape[:2], u.shape[1] // q.shape[1]
        flops.count("short_convolution", 4 * q.numel() * w.shape[1])
        dq, dk, dv = dfeatures = torch.empty_like(features)
        do, dbias, dbias_q = torch.empty_like(o), torch.empty_like(bias), w.new_empty(D, B)
        run(_gate_back, D * B, dy, q, bias, o.view(D, B, -1), dq, do.view(D, B, -1), dbias_q)
        after, dkept = do @ reads, torch.empty_like(kept)
        run(_carry_back, D, kept, before.view(D, B, N, -1), after.view(D, B, N, -1), dkept)
        du = (do @ toeplitz.mT).baddbmm_(after, writes.mT)
        arrays = [c, log_a, u.mT @ do, do.mT @ before, u.mT @ after, dkept]
        dc, dlog_a, dskip = torch.empty_like(c), torch.empty_like(log_a), w.new_empty(D)
        run(_systems_back, D, *arrays, dc, dlog_a, dskip)
        dw = torch.empty_like(w)
        run(_shift_back, D, k, v, bias, w, shifted, du.view(D, B, -1), dk, dv, dw, dbias)
        dbias[0] = dbias_q.sum(1)
        return dfeatures, dbias, dw, torch.view_as_complex(dc), torch.view_as_complex(dlog_a), dskip


@inlined
def _spread(w, back, taps):  # type: ignore[no-untyped-def]
    """The taps behind zeros, a multiple of `TAPS` in all; or `back`, in reverse before zeros."""
    W, size = len(w), len(taps)
    taps[:] = 0
    for j in range(W):
        if back:
            taps[j] = w[W - 1 - j]
        else:
            taps[size - W + j] = w[j]


@inlined
def _correlate(line, taps, y):  # type: ignore[no-untyped-def]
    """y_t = Σ_j taps_j line_{t+j}."""
    T = len(y)
    for t in range(T):
        y[t] = 0
    for j in range(0, len(taps), TAPS):
        w0, w1, w2, w3 = taps[j], taps[j + 1], taps[j + 2], taps[j + 3]
        w4, w5, w6, w7 = taps[j + 4], taps[j + 5], taps[j + 6], taps[j + 7]
        x0, x1, x2, x3 = line[j : j + T], line[j + 1 : j + 1 + T], line[j + 2 : j + 2 + T], line[j + 3 : j + 3 + T]
        x4, x5, x6, x7 = (
            line[j + 4 : j + 4 + T],
            line[j + 5 : j + 5 + T],
            line[j + 6 : j + 6 + T],
            line[j + 7 : j + 7 + T],
        )
        for t in range(T):
            early = w0 * x0[t] + w1 * x1[t] + w2 * x2[t] + w3 * x3[t]
            y[t] += early + w4 * x4[t] + w5 * x5[t] + w6 * x6[t] + w7 * x7[t]


@loop
def _shift(start, stop, k, v, bias, w, shifted, u):  # type: ignore[no-untyped-def]
    """Work items are channels. The shift model's output, and u, followed by zeros to the end of the last chunk."""
    (_, B, T), W = k.shape, w.shape[1]
    size = -(-W // TAPS) * TAPS
    taps, line, sums = np.empty(size, w.dtype), np.zeros(size - 1 + T, w.dtype), np.empty(T, w.dtype)
    for d in range(start, stop):
        _spread(w[d], False, taps)
        for b in range(B):
            k_, v_, kept, out, now = k[d, b], v[d, b], shifted[d, b], u[d, b], line[size - 1 :]
            for t in range(T):
                now[t] = widened(k_[t]) + bias[1, d]
            prefetch(v, (d * B + b) * T, T)
            prefetch(shifted, (d * B + b) * T, T)
            prefetch(u, (d * B + b) * u.shape[2], T)
            _correlate(line, taps, sums)
            for t in range(T):
                kept[t] = sums[t]
            for t in range(T):
                out[t] = sums[t] * (widened(v_[t]) + bias[2, d])
            out[T:] = 0


@loop
def _shift_back(start, stop, k, v, bias, w, shifted, du, dk, dv, dw, dbias):  # type: ignore[no-untyped-def]
    (_, B, T), W = k.shape, w.shape[1]
    size = -(-W // TAPS) * TAPS
    back, dtaps = np.empty(size, w.dtype), np.empty(size, w.dtype)
    line, slopes, sums = np.zeros(size - 1 + T, w.dtype), np.zeros(T + size - 1, w.dtype), np.empty(T, w.dtype)
    for d in range(start, stop):
        _spread(w[d], True, back)
        dtaps[:], of_k, of_v = 0, w.dtype.type(0), w.dtype.type(0)
        for b in range(B):
            k_, v_, du_, dk_, dv_, now = k[d, b], v[d, b], du[d, b], dk[d, b], dv[d, b], line[size - 1 :]
            kept = shifted[d, b]
            for t in range(T):
                now[t] = widened(k_[t]) + bias[1, d]
            for t in range(T):
                sums[t] = kept[t] * du_[t]
                of_v += sums[t]
            for t in range(T):
                dv_[t] = narrowed(sums[t], dv_)
            for t in range(T):
                slopes[t] = du_[t] * (widened(v_[t]) + bias[2, d])
            _correlate(slopes, back, sums)
            for t in range(T):
                of_k += sums[t]
            for t in range(T):
                dk_[t] = narrowed(sums[t], dk_)
            _weigh(slopes[:T], line, dtaps)
        dw[d], dbias[1, d], dbias[2, d] = dtaps[size - W :], of_k, of_v


@inlined
def _weigh(slopes, line, dtaps):  # type: ignore[no-untyped-def]
    """dtaps_j += Σ_t slopes_t line_{t+j}."""
    T = len(slopes)
    for j in range(0, len(dtaps), TAPS):
        x0, x1, x2, x3 = line[j : j + T], line[j + 1 : j + 1 + T], line[j + 2 : j + 2 + T], line[j + 3 : j + 3 + T]
        x4, x5, x6, x7 = (
            line[j + 4 : j + 4 + T],
            line[j + 5 : j + 5 + T],
            line[j + 6 : j + 6 + T],
            line[j + 7 : j + 7 + T],
        )
        s0, s1, s2, s3 = dtaps[j], dtaps[j + 1], dtaps[j + 2], dtaps[j + 3]
        s4, s5, s6, s7 = dtaps[j + 4], dtaps[j + 5], dtaps[j + 6], dtaps[j + 7]
        for t in range(T):
            slope = slopes[t]
            s0 += slope * x0[t]
            s1 += slope * x1[t]
            s2 += slope * x2[t]
            s3 += slope * x3[t]
            s4 += slope * x4[t]
            s5 += slope * x5[t]
            s6 += slope * x6[t]
            s7 += slope * x7[t]
        dtaps[j], dtaps[j + 1], dtaps[j + 2], dtaps[j + 3] = s0, s1, s2, s3
        dtaps[j + 4], dtaps[j + 5], dtaps[j + 6], dtaps[j + 7] = s4, s5, s6, s7


@inlined
def _powers(log_a, re, im):  # type: ignore[no-untyped-def]
    """a^l for l = 0 … C as rows of real and of imaginary parts, one from the last, in float64."""
    M = len(log_a)
    a_re, a_im = np.empty(M), np.empty(M)
    for n in range(M):
        size, angle = np.exp(np.float64(log_a[n, 0])), np.float64(log_a[n, 1])
        a_re[n], a_im[n] = size * np.cos(angle), size * np.sin(angle)
    re[0], im[0] = 1, 0
    for power in range(1, len(re)):
        r, i, r_, i_ = re[power - 1], im[power - 1], re[power], im[power]
        for n in range(M):
            r_[n] = r[n] * a_re[n] - i[n] * a_im[n]
            i_[n] = r[n] * a_im[n] + i[n] * a_re[n]


@loop
def _systems(start, stop, c, log_a, skip, toeplitz, reads, writes, kept):  # type: ignore[no-untyped-def]
    """Work items are channels. The matrices of a chunk, and a^C."""
    _, C, M = writes.shape
    M //= 2
    re, im, K = np.empty((C + 1, M)), np.empty((C + 1, M)), np.empty(C, writes.dtype)
    c_re, c_im = np.empty(M), np.empty(M)
    for d in range(start, stop):
        _powers(log_a[d], re, im)
        c_re[:], c_im[:] = c[d, :, 0], c[d, :, 1]
        for power in range(C):
            a_re, a_im = re[power], im[power]
            to_re, to_im, total = writes[d, C - 1 - power, :M], writes[d, C - 1 - power, M:], 0.0
            for n in range(M):
                total += c_re[n] * a_re[n] - c_im[n] * a_im[n]
            K[power] = 2 * total
            for n in range(M):
                to_re[n] = a_re[n]
            for n in range(M):
                to_im[n] = a_im[n]
            a_re, a_im, of_re, of_im = re[power + 1], im[power + 1], reads[d, power, :M], reads[d, power, M:]
            for n in range(M):
                of_re[n] = 2 * (c_re[n] * a_re[n] - c_im[n] * a_im[n])
            for n in range(M):
                of_im[n] = -2 * (c_re[n] * a_im[n] + c_im[n] * a_re[n])
        kept[d, :M], kept[d, M:] = re[C], im[C]
        K[0] += skip[d]
        for s in range(C):
            row = toeplitz[d, s, s:]
            toeplitz[d, s, :s] = 0
            for t in range(C - s):
                row[t] = K[t]


@loop
def _systems_back(start, stop, c, log_a, dtoeplitz, dreads, dwrites, dkept, dc, dlog_a, dskip):  # type: ignore[no-untyped-def]
    """What the matrices' gradients say of c, ln a and D."""
    _, C, M = dwrites.shape
    M //= 2
    re, im, dK = np.empty((C + 1, M)), np.empty((C + 1, M)), np.empty(C + 1, dwrites.dtype)
    c_re, c_im, p_re, p_im, none = np.empty(M), np.empty(M), np.empty(M), np.empty(M), np.zeros(M, dwrites.dtype)
    dc_re, dc_im, da_re, da_im = np.empty(M), np.empty(M), np.empty(M), np.empty(M)
    for d in range(start, stop):
        _powers(log_a[d], re, im)
        c_re[:], c_im[:] = c[d, :, 0], c[d, :, 1]
        dK[:], dc_re[:], dc_im[:], da_re[:], da_im[:] = 0, 0, 0, 0, 0
        for s in range(C):
            row = dtoeplitz[d, s, s:]
            for t in range(C - s):
                dK[t] += row[t]
        dskip[d] = dK[0]
        for power in range(C + 1):
            # z = c a^l: K_l = Σ 2 Re z, and 2 Re z and −2 Im z are what is read.
            a_re, a_im, by_re, by_im, of_re, of_im = re[power], im[power], none, none, dkept[d, :M], dkept[d, M:]
            if power > 0:
                by_re, by_im = dreads[d, power - 1, :M], dreads[d, power - 1, M:]
            if power < C:
                of_re, of_im = dwrites[d, C - 1 - power, :M], dwrites[d, C - 1 - power, M:]
            for n in range(M):
                z_re, z_im = 2 * (np.float64(dK[power]) + by_re[n]), -2 * np.float64(by_im[n])
                dc_re[n] += z_re * a_re[n] + z_im * a_im[n]
                dc_im[n] += z_im * a_re[n] - z_re * a_im[n]
                p_re[n] = z_re * c_re[n] + z_im * c_im[n] + of_re[n]
                p_im[n] = z_im * c_re[n] - z_re * c_im[n] + of_im[n]
            for n in range(M):
                da_re[n] += power * (p_re[n] * a_re[n] + p_im[n] * a_im[n])
                da_im[n] += power * (p_im[n] * a_re[n] - p_re[n] * a_im[n])
        dc[d, :, 0], dc[d, :, 1], dlog_a[d, :, 0], dlog_a[d, :, 1] = dc_re, dc_im, da_re, da_im


@loop
def _carry(start, stop, kept, states):  # type: ignore[no-untyped-def]
    """Work items are channels of a sequence. What chunks add to states becomes the states before them."""
    _, B, N, M = states.shape
    M, L = M // 2, lanes(states)
    across = -(-M // L) * L
    x_re, x_im, a_re, a_im = (
        aligned_zeros(across, states),
        aligned_zeros(across, states),
        aligned_zeros(across, states),
        aligned_zeros(across, states),
    )
    for item in range(start, stop):
        d = item // B
        a_re[:M], a_im[:M], x_re[:], x_im[:] = kept[d, :M], kept[d, M:], 0, 0
        for at in range(item * N * 2 * M, (item + 1) * N * 2 * M, 2 * M):
            prefetch(states, at + AHEAD * 2 * M, 2 * M)
            for c in range(0, M, L):
                re, im, size = at + c, at + M + c, M - c
                r, j, of_re, of_im = load(x_re, c), load(x_im, c), load(a_re, c), load(a_im, c)
                store(of_re * r - of_im * j + load_partial(states, re, size), x_re, c)
                store(of_re * j + of_im * r + load_partial(states, im, size), x_im, c)
                store_partial(r, states, re, size)
                store_partial(j, states, im, size)


@loop
def _carry_back(start, stop, kept, before, slopes, dkept):  # type: ignore[no-untyped-def]
    """Work items are channels. What chunks read of states becomes the gradients of the states after them."""
    _, B, N, M = before.shape
    M, L = M // 2, lanes(before)
    across = -(-M // L) * L
    x_re, x_im, a_re, a_im = (
        aligned_zeros(across, before),
        aligned_zeros(across, before),
        aligned_zeros(across, before),
        aligned_zeros(across, before),
    )
    da_re, da_im = aligned_zeros(across, before), aligned_zeros(across, before)
    for d in range(start, stop):
        a_re[:M], a_im[:M], da_re[:], da_im[:] = kept[d, :M], kept[d, M:], 0, 0
        for b in range(B):
            x_re[:], x_im[:] = 0, 0
            for back in range(N):
                at = ((d * B + b) * N + N - 1 - back) * 2 * M
                prefetch(slopes, at - AHEAD * 2 * M, 2 * M)
                prefetch(before, at - AHEAD * 2 * M, 2 * M)
                for c in range(0, M, L):
                    re, im, size = at + c, at + M + c, M - c
                    r, j, of_re, of_im = load(x_re, c), load(x_im, c), load(a_re, c), load(a_im, c)
                    was_re, was_im = load_partial(before, re, size), load_partial(before, im, size)
                    store(load(da_re, c) + r * was_re + j * was_im, da_re, c)
                    store(load(da_im, c) + j * was_re - r * was_im, da_im, c)
                    store(of_re * r + of_im * j + load_partial(slopes, re, size), x_re, c)
                    store(of_re * j - of_im * r + load_partial(slopes, im, size), x_im, c)
                    store_partial(r, slopes, re, size)
                    store_partial(j, slopes, im, size)
        dkept[d, :M], dkept[d, M:] = da_re[:M], da_im[:M]


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
