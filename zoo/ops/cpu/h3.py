"""H3 channel by channel: the shift model in a loop over its taps, the diagonal one in chunks of products.

Within a chunk of C steps, with x the state before it and K_l = 2 Re Σ_n c_n a_n^l, D added to K_0,

    o_t = Σ_{s ≤ t} K_{t−s} u_s + 2 Re Σ_n c_n a_n^{t+1} x^n,    x^n ← a_n^C x^n + Σ_s a_n^{C−1−s} u_s

which are three products for each channel, of all its chunks: with the Toeplitz matrix of K, with what is read of states
and with what is written into them, complex numbers as pairs of rows of real and imaginary parts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.bfloat16 import narrowed, widened
from zoo.ops.cpu.jit import inlined, loop
from zoo.ops.cpu.matmul import aligned_zeros
from zoo.ops.cpu.simd import broadcast, lanes, load, load_partial, prefetch, store, store_partial, sum_lanes
from zoo.ops.cpu.threads import run

CHUNK = 32
"""Steps of a chunk, at most: longer ones have larger matrices, shorter ones more states."""
AHEAD = 4
"""Chunks between one whose state is worked on and one that is prefetched."""
BLOCK = 64
"""Steps that are correlated together, a multiple of four vectors."""


def h3(features: Tensor, bias: Tensor, w: Tensor, c: Tensor, log_a: Tensor, skip: Tensor) -> Tensor:
    """As `naive.h3`; all but the features in the wider dtype that is computed in."""
    return CompiledH3.apply(features, bias, w, c, log_a, skip)


class Keys(NamedTuple):
    """What the shift model reads (D, B, T), the values it is multiplied by, their biases and the taps; or gradients."""

    k: Tensor
    v: Tensor
    bias: Tensor
    w: Tensor


class Chunks(NamedTuple):
    """The matrices of a chunk of each channel: K as a Toeplitz matrix (C, C), what reads states and what writes them
    (C, 2M), and a^C; or their gradients."""

    toeplitz: Tensor
    reads: Tensor
    writes: Tensor
    kept: Tensor


class CompiledH3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, bias: Tensor, w: Tensor, c: Tensor, log_a: Tensor, skip: Tensor) -> Tensor:
        q, k, v = features = features.contiguous()
        (D, B, T), M, C = q.shape, c.shape[1], min(CHUNK, features.shape[3])
        flops.count("short_convolution", 2 * q.numel() * w.shape[1])
        N, c, log_a = -(-T // C), *(torch.view_as_real(x.resolve_conj().contiguous()) for x in (c, log_a))
        u, shifted = w.new_empty(D, B * N, C), w.new_empty(D, B, T)
        run(_shift, D, Keys(k, v, bias, w), shifted, u.view(D, B, -1))
        chunks = Chunks(*(w.new_empty(D, *shape) for shape in ((C, C), (C, 2 * M), (C, 2 * M), (2 * M,))))
        run(_systems, D, c, log_a, skip, chunks)
        before, o = u @ chunks.writes, u @ chunks.toeplitz
        run(_carry, D * B, chunks.kept, before.view(D, B, N, -1))
        o.baddbmm_(before, chunks.reads.mT)
        y = torch.empty_like(q)
        run(_gate, D * B, q, bias, o.view(D, B, -1), y)
        ctx.save_for_backward(features, bias, w, c, log_a, shifted, u, *chunks, before, o)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        features, bias, w, c, log_a, shifted, u, *chunks, before, o = ctx.saved_tensors
        (q, k, v), chunks = features, Chunks(*chunks)
        (D, B), N = q.shape[:2], u.shape[1] // q.shape[1]
        flops.count("short_convolution", 4 * q.numel() * w.shape[1])
        d_q, d_k, d_v = d_features = torch.empty_like(features)
        d_o, d_bias, d_bias_q = torch.empty_like(o), torch.empty_like(bias), w.new_empty(D, B)
        run(_gate_backward, D * B, d_y, q, bias, o.view(D, B, -1), d_q, d_o.view(D, B, -1), d_bias_q)
        after, d_kept = d_o @ chunks.reads, torch.empty_like(chunks.kept)
        run(_carry_backward, D, chunks.kept, before.view(D, B, N, -1), after.view(D, B, N, -1), d_kept)
        d_u = (d_o @ chunks.toeplitz.mT).baddbmm_(after, chunks.writes.mT)
        d_chunks = Chunks(u.mT @ d_o, d_o.mT @ before, u.mT @ after, d_kept)
        d_c, d_log_a, d_skip, d_w = torch.empty_like(c), torch.empty_like(log_a), w.new_empty(D), torch.empty_like(w)
        run(_systems_backward, D, c, log_a, d_chunks, d_c, d_log_a, d_skip)
        inputs, gradients = Keys(k, v, bias, w), Keys(d_k, d_v, d_bias, d_w)
        run(_shift_backward, D, inputs, shifted, d_u.view(D, B, -1), gradients)
        d_bias[0] = d_bias_q.sum(1)
        return d_features, d_bias, d_w, torch.view_as_complex(d_c), torch.view_as_complex(d_log_a), d_skip


@inlined
def _correlate(line, taps, y):  # type: ignore[no-untyped-def]
    """y_t = Σ_j taps_j line_{t+j}, for whole blocks."""
    L, zero = lanes(y), broadcast(y.dtype.type(0))
    for t in range(0, len(y), 4 * L):
        y0, y1, y2, y3 = zero, zero, zero, zero
        for j in range(len(taps)):
            w = broadcast(taps[j])
            y0 = y0 + w * load(line, t + j)
            y1 = y1 + w * load(line, t + L + j)
            y2 = y2 + w * load(line, t + 2 * L + j)
            y3 = y3 + w * load(line, t + 3 * L + j)
        store(y0, y, t)
        store(y1, y, t + L)
        store(y2, y, t + 2 * L)
        store(y3, y, t + 3 * L)


@inlined
def _correlate_backward(line, d_y, d_taps):  # type: ignore[no-untyped-def]
    """Of the taps, four at a time, on top: Σ_t d_y_t line_{t+j}."""
    L, zero = lanes(d_y), broadcast(d_y.dtype.type(0))
    for j in range(0, len(d_taps), 4):
        d0, d1, d2, d3 = zero, zero, zero, zero
        for t in range(0, len(d_y), L):
            slope = load(d_y, t)
            d0 = d0 + slope * load(line, t + j)
            d1 = d1 + slope * load(line, t + j + 1)
            d2 = d2 + slope * load(line, t + j + 2)
            d3 = d3 + slope * load(line, t + j + 3)
        d_taps[j] += sum_lanes(d0)
        d_taps[j + 1] += sum_lanes(d1)
        d_taps[j + 2] += sum_lanes(d2)
        d_taps[j + 3] += sum_lanes(d3)


@loop
def _shift(start, stop, x, shifted, u):  # type: ignore[no-untyped-def]
    """Work items are channels. The shift model's output, and u, followed by zeros to the end of the last chunk."""
    (_, B, T), W = x.k.shape, x.w.shape[1]
    size = -(-T // BLOCK) * BLOCK
    line, sums = aligned_zeros(W - 1 + size, x.w), aligned_zeros(size, x.w)
    for d in range(start, stop):
        for b in range(B):
            k, v, kept, to, now = x.k[d, b], x.v[d, b], shifted[d, b], u[d, b], line[W - 1 :]
            for t in range(T):
                now[t] = widened(k[t]) + x.bias[1, d]
            prefetch(x.v, (d * B + b) * T, T)
            prefetch(shifted, (d * B + b) * T, T)
            prefetch(u, (d * B + b) * u.shape[2], T)
            _correlate(line, x.w[d], sums)
            for t in range(T):
                kept[t] = sums[t]
            for t in range(T):
                to[t] = sums[t] * (widened(v[t]) + x.bias[2, d])
            to[T:] = 0


@loop
def _shift_backward(start, stop, x, shifted, d_u, d):  # type: ignore[no-untyped-def]
    (_, B, T), W, kind = x.k.shape, x.w.shape[1], x.w
    size = -(-T // BLOCK) * BLOCK
    back, d_taps = aligned_zeros(W, kind), aligned_zeros(W + 3, kind)[: -(-W // 4) * 4]
    line, d_shifted, sums = (
        aligned_zeros(W + size + 3, kind),
        aligned_zeros(size + W - 1, kind),
        aligned_zeros(size, kind),
    )
    for i in range(start, stop):
        d_taps[:], of_k, of_v = 0, kind.dtype.type(0), kind.dtype.type(0)
        for j in range(W):
            back[j] = x.w[i, W - 1 - j]
        for b in range(B):
            k, v, kept, slope, to_k, to_v = x.k[i, b], x.v[i, b], shifted[i, b], d_u[i, b], d.k[i, b], d.v[i, b]
            now = line[W - 1 :]
            for t in range(T):
                now[t] = widened(k[t]) + x.bias[1, i]
            for t in range(T):
                sums[t] = kept[t] * slope[t]
                of_v += sums[t]
            for t in range(T):
                to_v[t] = narrowed(sums[t], to_v)
            for t in range(T):
                d_shifted[t] = slope[t] * (widened(v[t]) + x.bias[2, i])
            _correlate(d_shifted, back, sums)
            for t in range(T):
                of_k += sums[t]
            for t in range(T):
                to_k[t] = narrowed(sums[t], to_k)
            _correlate_backward(line, d_shifted[:size], d_taps)
        d.w[i], d.bias[1, i], d.bias[2, i] = d_taps[:W], of_k, of_v


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
def _systems(start, stop, c, log_a, skip, chunks):  # type: ignore[no-untyped-def]
    """Work items are channels. The matrices of a chunk, and a^C."""
    C, M = chunks.writes.shape[1], len(c[0])
    re, im, K, c_re, c_im = np.empty((C + 1, M)), np.empty((C + 1, M)), np.empty(C), np.empty(M), np.empty(M)
    for d in range(start, stop):
        toeplitz, reads, writes = chunks.toeplitz[d], chunks.reads[d], chunks.writes[d]
        _powers(log_a[d], re, im)
        c_re[:], c_im[:] = c[d, :, 0], c[d, :, 1]
        for power in range(C):
            a_re, a_im, total = re[power], im[power], 0.0
            to_re, to_im = writes[C - 1 - power, :M], writes[C - 1 - power, M:]
            for n in range(M):
                total += c_re[n] * a_re[n] - c_im[n] * a_im[n]
            K[power] = 2 * total
            for n in range(M):
                to_re[n] = a_re[n]
            for n in range(M):
                to_im[n] = a_im[n]
            a_re, a_im, to_re, to_im = re[power + 1], im[power + 1], reads[power, :M], reads[power, M:]
            for n in range(M):
                to_re[n] = 2 * (c_re[n] * a_re[n] - c_im[n] * a_im[n])
            for n in range(M):
                to_im[n] = -2 * (c_re[n] * a_im[n] + c_im[n] * a_re[n])
        chunks.kept[d, :M], chunks.kept[d, M:] = re[C], im[C]
        K[0] += skip[d]
        toeplitz[:] = 0
        for s in range(C):
            row = toeplitz[s, s:]
            for t in range(C - s):
                row[t] = K[t]


@loop
def _systems_backward(start, stop, c, log_a, d, d_c, d_log_a, d_skip):  # type: ignore[no-untyped-def]
    """What the matrices' gradients say of c, ln a and D."""
    C, M, kind = d.writes.shape[1], len(c[0]), d.writes.dtype
    re, im, d_K, none = np.empty((C + 1, M)), np.empty((C + 1, M)), np.empty(C + 1, kind), np.zeros(2 * M, kind)
    c_re, c_im, p_re, p_im = np.empty(M), np.empty(M), np.empty(M), np.empty(M)
    c_re_, c_im_, a_re_, a_im_ = np.empty(M), np.empty(M), np.empty(M), np.empty(M)
    for i in range(start, stop):
        _powers(log_a[i], re, im)
        c_re[:], c_im[:] = c[i, :, 0], c[i, :, 1]
        d_K[:], c_re_[:], c_im_[:], a_re_[:], a_im_[:] = 0, 0, 0, 0, 0
        for s in range(C):
            row = d.toeplitz[i, s, s:]
            for t in range(C - s):
                d_K[t] += row[t]
        d_skip[i] = d_K[0]
        for power in range(C + 1):
            # z = c a^l: K_l = Σ 2 Re z, and 2 Re z and −2 Im z are what is read.
            a_re, a_im = re[power], im[power]
            by = d.reads[i, power - 1] if power > 0 else none
            of = d.writes[i, C - 1 - power] if power < C else d.kept[i]
            by_re, by_im, of_re, of_im = by[:M], by[M:], of[:M], of[M:]
            for n in range(M):
                z_re, z_im = 2 * (np.float64(d_K[power]) + by_re[n]), -2 * np.float64(by_im[n])
                c_re_[n] += z_re * a_re[n] + z_im * a_im[n]
                c_im_[n] += z_im * a_re[n] - z_re * a_im[n]
                p_re[n] = z_re * c_re[n] + z_im * c_im[n] + of_re[n]
                p_im[n] = z_im * c_re[n] - z_re * c_im[n] + of_im[n]
            for n in range(M):
                a_re_[n] += power * (p_re[n] * a_re[n] + p_im[n] * a_im[n])
                a_im_[n] += power * (p_im[n] * a_re[n] - p_re[n] * a_im[n])
        d_c[i, :, 0], d_c[i, :, 1], d_log_a[i, :, 0], d_log_a[i, :, 1] = c_re_, c_im_, a_re_, a_im_


@loop
def _carry(start, stop, kept, states):  # type: ignore[no-untyped-def]
    """Work items are channels of a sequence. What chunks add to states becomes the states before them."""
    _, B, N, M = states.shape
    M, L = M // 2, lanes(states)
    size = -(-M // L) * L
    x, a = aligned_zeros(2 * size, states), aligned_zeros(2 * size, states)
    for item in range(start, stop):
        x[:], a[:M], a[size : size + M] = 0, kept[item // B, :M], kept[item // B, M:]
        for at in range(item * N * 2 * M, (item + 1) * N * 2 * M, 2 * M):
            prefetch(states, at + AHEAD * 2 * M, 2 * M)
            for n in range(0, M, L):
                re, im, of_re, of_im = load(x, n), load(x, size + n), load(a, n), load(a, size + n)
                store(of_re * re - of_im * im + load_partial(states, at + n, M - n), x, n)
                store(of_re * im + of_im * re + load_partial(states, at + M + n, M - n), x, size + n)
                store_partial(re, states, at + n, M - n)
                store_partial(im, states, at + M + n, M - n)


@loop
def _carry_backward(start, stop, kept, before, slopes, d_kept):  # type: ignore[no-untyped-def]
    """Work items are channels. What chunks read of states becomes the gradients of the states after them."""
    _, B, N, M = before.shape
    M, L = M // 2, lanes(before)
    size = -(-M // L) * L
    x, a, d_a = aligned_zeros(2 * size, before), aligned_zeros(2 * size, before), aligned_zeros(2 * size, before)
    for d in range(start, stop):
        d_a[:], a[:M], a[size : size + M] = 0, kept[d, :M], kept[d, M:]
        for b in range(B):
            x[:] = 0
            for back in range(N):
                at = ((d * B + b) * N + N - 1 - back) * 2 * M
                prefetch(slopes, at - AHEAD * 2 * M, 2 * M)
                prefetch(before, at - AHEAD * 2 * M, 2 * M)
                for n in range(0, M, L):
                    re, im, of_re, of_im = load(x, n), load(x, size + n), load(a, n), load(a, size + n)
                    was_re, was_im = load_partial(before, at + n, M - n), load_partial(before, at + M + n, M - n)
                    store(load(d_a, n) + re * was_re + im * was_im, d_a, n)
                    store(load(d_a, size + n) + im * was_re - re * was_im, d_a, size + n)
                    store(of_re * re + of_im * im + load_partial(slopes, at + n, M - n), x, n)
                    store(of_re * im - of_im * re + load_partial(slopes, at + M + n, M - n), x, size + n)
                    store_partial(re, slopes, at + n, M - n)
                    store_partial(im, slopes, at + M + n, M - n)
        d_kept[d, :M], d_kept[d, M:] = d_a[:M], d_a[size : size + M]


@loop
def _gate(start, stop, q, bias, o, y):  # type: ignore[no-untyped-def]
    """Work items are channels of a sequence."""
    _, B, T = q.shape
    for item in range(start, stop):
        d, b = item // B, item % B
        query, line, to = q[d, b], o[d, b], y[d, b]
        for t in range(T):
            to[t] = narrowed((widened(query[t]) + bias[0, d]) * line[t], to)


@loop
def _gate_backward(start, stop, d_y, q, bias, o, d_q, d_o, d_bias):  # type: ignore[no-untyped-def]
    _, B, T = q.shape
    for item in range(start, stop):
        d, b = item // B, item % B
        slope, query, line, to_q, to_o, total = d_y[d, b], q[d, b], o[d, b], d_q[d, b], d_o[d, b], bias.dtype.type(0)
        for t in range(T):
            total += widened(slope[t]) * line[t]
        for t in range(T):
            to_q[t] = narrowed(widened(slope[t]) * line[t], to_q)
        for t in range(T):
            to_o[t] = widened(slope[t]) * (widened(query[t]) + bias[0, d])
        d_bias[d, b] = total
        to_o[T:] = 0
