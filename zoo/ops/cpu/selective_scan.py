"""The selective scan as a compiled loop: the N states of a block of channels stay in L1 while time goes by.

What stands around the scan in a layer, softplus(Δ + bias) before it and y ⊙ SiLU(z) behind it, is done on the way; u,
Δ, B, C, z, and y and their gradients may then be bfloat16, which is widened and narrowed as it is read and written.

No state is written to memory but every LENGTH-th. The backward pass goes through the spans between those from the last
to the first: it runs one forward again, keeping its states and decays in L2, then walks it back by the equations in
`chunked.py`, whose symbols are used here. Arrays of states are laid out (N, channels), so that loops over channels are
contiguous, and powers are taken of 2: A comes times log₂ e. Loops take two of the N at once, of an odd N one that is
nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.bfloat16 import memory, narrowed, widened
from zoo.ops.cpu.jit import exp2, inlined, loop, sigmoid, softplus
from zoo.ops.cpu.threads import run

LENGTH = 16
"""Steps between two kept states."""
CHANNELS = 128
"""Channels one call of a loop takes through time together."""


class CompiledSelectiveScan(torch.autograd.Function):
    """`naive.selective_scan` on float32 or float64 tensors of a CPU: y and h from u, Δ, A, B, C, D and h_0.

    h_t = e^{Δ_t A} h_{t−1} + Δ_t B_t u_t,    y_t = C_t h_t + D u_t

    With z and a bias it is `naive.gated_selective_scan`, and all that vary with time may be bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        h: Tensor,
        z: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        (batch, T, width), N = u.shape, A.shape[1]
        flops.count("selective_scan", 2 * u.numel() * N)
        exponent = (A.T * math.log2(math.e)).contiguous()
        kept = h.new_empty(batch, -(-T // LENGTH) + 1, N, width)
        kept[:, 0] = h.mT
        skip = h.new_zeros(width) if D is None else D
        if z is not None and z.stride(2) != 1:
            z = z.contiguous()
        ctx.save_for_backward(u, delta, exponent, B, C, skip, kept, z, bias)
        y = torch.empty_like(u, memory_format=torch.contiguous_format)
        arrays = [*_arrays(u, delta, exponent, B, C, skip, kept, z, bias), y]
        run(_forward, batch * -(-width // CHANNELS), *arrays)
        return y, kept[:, -1].mT.contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor | None, ...]:
        u, _, _, B, _, _, kept, z, bias = ctx.saved_tensors
        (batch, T, width), N = u.shape, B.shape[2]
        flops.count("selective_scan", 4 * u.numel() * N)
        blocks = -(-width // CHANNELS)
        du, d_delta, dz = (u.new_empty(u.shape if there else (1, 1, 1)) for there in (True, True, z is not None))
        dB, dC = (kept.new_empty(batch, blocks, T, N) for _ in range(2))
        dA, g = kept.new_empty(batch, N, width), dh.mT.contiguous()
        dD, d_bias = (kept.new_empty(batch, width) for _ in range(2))
        inputs = _arrays(*ctx.saved_tensors)
        outputs = [dy.to(u.dtype), g, du, d_delta, dA, dB, dC, dD, dz, d_bias]
        run(_backward, batch * blocks, *inputs, *outputs)
        return (
            du,
            d_delta,
            dA.sum(0).T,
            dB.sum(1),
            dC.sum(1),
            dD.sum(0) if ctx.needs_input_grad[5] else None,
            g.mT,
            None if z is None else dz,
            None if bias is None else d_bias.sum(0),
        )


def _arrays(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    kept: Tensor,
    z: Tensor | None,
    bias: Tensor | None,
) -> list[Any]:
    """What both loops read: tensors as arrays, z as memory with its strides, and whether there are z and a bias."""
    gated = z is not None and bias is not None
    z, bias = (z, bias) if z is not None and bias is not None else (u[:1, :1, :1], D)
    return [u, delta, A, B, C, D, kept, bias, memory(z), *z.stride()[:2], gated]


@loop
def _positive(delta, bias):  # type: ignore[no-untyped-def]
    """softplus(Δ + bias) in place of Δ. The rows of gates are functions of their own, short enough to vectorise."""
    for c in range(len(delta)):
        delta[c] = softplus(delta[c] + bias[c])


@loop
def _positive_slope(d_delta, delta, bias):  # type: ignore[no-untyped-def]
    for c in range(len(delta)):
        d_delta[c] *= sigmoid(delta[c] + bias[c])


@loop
def _gate(y, z):  # type: ignore[no-untyped-def]
    """y ⊙ SiLU(z) in place of y."""
    for c in range(len(y)):
        y[c] *= z[c] * sigmoid(z[c])


@loop
def _gate_slope(dy, z, slope):  # type: ignore[no-untyped-def]
    """dy ⊙ SiLU(z) in place of dy, and what times y is dz."""
    for c in range(len(dy)):
        gate = sigmoid(z[c])
        slope[c] = dy[c] * gate * (dy.dtype.type(1) + z[c] - z[c] * gate)
        dy[c] *= z[c] * gate


@loop
def _forward(start, stop, u, delta, A, B, C, D, kept, bias, z, row, step, gated, y):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (b, block) takes the channels of a block through all steps of row b."""
    _, T, width = u.shape
    N = A.shape[0]
    blocks = -(-width // CHANNELS)
    states = (N + N % 2) * CHANNELS
    A_, h = np.zeros(states, A.dtype), np.zeros(states, A.dtype)
    B_, C_ = np.zeros(N + 1, A.dtype), np.zeros(N + 1, A.dtype)
    u_, delta_, z_ = np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype)
    D_, bias_ = np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype)
    drive, y_ = np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * CHANNELS
        last = min(first + CHANNELS, width)
        size = last - first
        for x in (u_, delta_, D_):  # channels beyond the last stand still at zero
            x[size:] = 0
        D_[:size], bias_[:size] = D[first:last], bias[first:last]
        _gather(A[:, first:last], A_)
        _gather(kept[b, 0, :, first:last], h)
        for t in range(T):
            _widen(u[b, t, first:last], u_)
            _widen(delta[b, t, first:last], delta_)
            _widen(B[b, t], B_)
            _widen(C[b, t], C_)
            if gated:
                _positive(delta_, bias_)
            for c in range(CHANNELS):
                drive[c] = delta_[c] * u_[c]
                y_[c] = D_[c] * u_[c]
            for p in range((N + 1) // 2):
                n, i = 2 * p, 2 * p * CHANNELS
                B0, B1, C0, C1 = B_[n], B_[n + 1], C_[n], C_[n + 1]
                for c in range(CHANNELS):
                    h0 = exp2(delta_[c] * A_[i + c]) * h[i + c] + drive[c] * B0
                    h1 = exp2(delta_[c] * A_[i + CHANNELS + c]) * h[i + CHANNELS + c] + drive[c] * B1
                    y_[c] += C0 * h0 + C1 * h1
                    h[i + c], h[i + CHANNELS + c] = h0, h1
            if gated:
                _widen(z[b * row + t * step + first : b * row + t * step + last], z_)
                _gate(y_, z_)
            _narrow(y_, y[b, t, first:last])
            if (t + 1) % LENGTH == 0 or t == T - 1:
                for n in range(N):
                    kept[b, t // LENGTH + 1, n, first:last] = h[n * CHANNELS : n * CHANNELS + size]


@inlined
def _gather(x, rows):  # type: ignore[no-untyped-def]
    """(N, ≤ CHANNELS) into a contiguous (≥ N · CHANNELS), zeros behind each row and behind the last."""
    rows[:] = 0
    for n in range(x.shape[0]):
        rows[n * CHANNELS : n * CHANNELS + x.shape[1]] = x[n]


@inlined
def _widen(x, out):  # type: ignore[no-untyped-def]
    for c in range(len(x)):
        out[c] = widened(x[c])


@inlined
def _narrow(x, out):  # type: ignore[no-untyped-def]
    for c in range(len(out)):
        out[c] = narrowed(x[c], out)


@loop
def _backward(  # type: ignore[no-untyped-def]
    start,
    stop,
    u,
    delta,
    A,
    B,
    C,
    D,
    kept,
    bias,
    z,
    row,
    step,
    gated,
    dy,
    g_last,
    du,
    d_delta,
    dA,
    dB,
    dC,
    dD,
    dz,
    d_bias,
):
    _, T, width = u.shape
    N = A.shape[0]
    blocks = -(-width // CHANNELS)
    states = (N + N % 2) * CHANNELS
    ln2 = np.log(np.full(1, 2, A.dtype))[0]
    A_, h = np.zeros(states, A.dtype), np.zeros(states, A.dtype)
    g, dA_ = np.zeros(states, A.dtype), np.zeros(states, A.dtype)
    hs, decays = np.zeros((LENGTH + 1) * states, A.dtype), np.zeros(LENGTH * states, A.dtype)
    us, deltas = np.zeros(LENGTH * CHANNELS, A.dtype), np.zeros(LENGTH * CHANNELS, A.dtype)
    B_, C_ = np.zeros(N + 1, A.dtype), np.zeros(N + 1, A.dtype)
    dB_, dC_ = np.zeros(N + 1, A.dtype), np.zeros(N + 1, A.dtype)
    dy_, D_, dD_ = np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype)
    bias_, d_bias_ = np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype)
    z_, slope, y_ = np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype)
    drive, gB, Ae = np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype), np.zeros(CHANNELS, A.dtype)
    for item in range(start, stop):
        b, block = item // blocks, item % blocks
        first = block * CHANNELS
        last = min(first + CHANNELS, width)
        size = last - first
        for x in (us, deltas, dy_, D_, dD_, d_bias_, dA_):
            x[:] = 0
        D_[:size], bias_[:size] = D[first:last], bias[first:last]
        _gather(A[:, first:last], A_)
        _gather(g_last[b, :, first:last], g)
        for span in range(-(-T // LENGTH) - 1, -1, -1):
            origin = span * LENGTH
            steps = min(LENGTH, T - origin)
            _gather(kept[b, span, :, first:last], h)
            hs[:states] = h
            for j in range(steps):
                t = origin + j
                u_, delta_ = us[j * CHANNELS : (j + 1) * CHANNELS], deltas[j * CHANNELS : (j + 1) * CHANNELS]
                decay, after = decays[j * states : (j + 1) * states], hs[(j + 1) * states : (j + 2) * states]
                _widen(u[b, t, first:last], u_)
                _widen(delta[b, t, first:last], delta_)
                _widen(B[b, t], B_)
                if gated:
                    _positive(delta_, bias_)
                for c in range(CHANNELS):
                    drive[c] = delta_[c] * u_[c]
                for p in range((N + 1) // 2):
                    n, i = 2 * p, 2 * p * CHANNELS
                    B0, B1 = B_[n], B_[n + 1]
                    for c in range(CHANNELS):
                        a0, a1 = exp2(delta_[c] * A_[i + c]), exp2(delta_[c] * A_[i + CHANNELS + c])
                        h0, h1 = a0 * h[i + c] + drive[c] * B0, a1 * h[i + CHANNELS + c] + drive[c] * B1
                        decay[i + c], decay[i + CHANNELS + c] = a0, a1
                        h[i + c], h[i + CHANNELS + c] = h0, h1
                        after[i + c], after[i + CHANNELS + c] = h0, h1
            for j in range(steps - 1, -1, -1):
                t = origin + j
                u_, delta_ = us[j * CHANNELS : (j + 1) * CHANNELS], deltas[j * CHANNELS : (j + 1) * CHANNELS]
                decay, before = decays[j * states : (j + 1) * states], hs[j * states : (j + 1) * states]
                after = hs[(j + 1) * states : (j + 2) * states]
                _widen(dy[b, t, first:last], dy_)
                _widen(B[b, t], B_)
                _widen(C[b, t], C_)
                if gated:
                    _widen(z[b * row + t * step + first : b * row + t * step + last], z_)
                    _gate_slope(dy_, z_, slope)
                for c in range(CHANNELS):
                    drive[c] = delta_[c] * u_[c]
                    y_[c] = D_[c] * u_[c]
                    gB[c] = 0
                    Ae[c] = 0
                for p in range((N + 1) // 2):
                    n, i = 2 * p, 2 * p * CHANNELS
                    B0, B1, C0, C1 = B_[n], B_[n + 1], C_[n], C_[n + 1]
                    dB0, dB1, dC0, dC1 = B0 - B0, B0 - B0, B0 - B0, B0 - B0
                    for c in range(CHANNELS):
                        h0, h1 = after[i + c], after[i + CHANNELS + c]
                        g0, g1 = g[i + c] + dy_[c] * C0, g[i + CHANNELS + c] + dy_[c] * C1
                        y_[c] += C0 * h0 + C1 * h1
                        dC0 += dy_[c] * h0
                        dC1 += dy_[c] * h1
                        dB0 += drive[c] * g0
                        dB1 += drive[c] * g1
                        gB[c] += g0 * B0 + g1 * B1
                        g0 *= decay[i + c]
                        g1 *= decay[i + CHANNELS + c]
                        e0, e1 = g0 * before[i + c], g1 * before[i + CHANNELS + c]
                        dA_[i + c] += delta_[c] * e0
                        dA_[i + CHANNELS + c] += delta_[c] * e1
                        Ae[c] += A_[i + c] * e0 + A_[i + CHANNELS + c] * e1
                        g[i + c], g[i + CHANNELS + c] = g0, g1
                    dB_[n], dB_[n + 1], dC_[n], dC_[n + 1] = dB0, dB1, dC0, dC1
                dB[b, block, t], dC[b, block, t] = dB_[:N], dC_[:N]
                for c in range(CHANNELS):
                    Ae[c] = ln2 * Ae[c] + u_[c] * gB[c]
                    gB[c] = delta_[c] * gB[c] + D_[c] * dy_[c]
                    dD_[c] += u_[c] * dy_[c]
                if gated:
                    _widen(delta[b, t, first:last], z_)
                    _positive_slope(Ae, z_, bias_)
                    for c in range(CHANNELS):
                        d_bias_[c] += Ae[c]
                        slope[c] *= y_[c]
                    _narrow(slope, dz[b, t, first:last])
                _narrow(gB, du[b, t, first:last])
                _narrow(Ae, d_delta[b, t, first:last])
        for n in range(N):
            at = n * CHANNELS
            dA[b, n, first:last], g_last[b, n, first:last] = dA_[at : at + size], g[at : at + size]
        dD[b, first:last], d_bias[b, first:last] = dD_[:size], d_bias_[:size]
