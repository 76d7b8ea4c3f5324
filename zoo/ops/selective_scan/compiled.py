"""The selective scan as a compiled loop: the N states of a block of channels stay in L1 while time goes by.

No state is written to memory but every LENGTH-th. The backward pass goes through the spans between those from the last
to the first: it runs one forward again, keeping its states and decays in L2, then walks it back by the equations in
`chunked.py`, whose symbols are used here. Arrays of states are laid out (N, channels), so that loops over channels are
contiguous, and powers are taken of 2: A comes times log₂ e.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from zoo.ops import flops
from zoo.ops.compiled import array, spread
from zoo.ops.loops import FAST, inlined, loop

LENGTH = 32
"""Steps between two kept states."""
CHANNELS = 64
"""Channels one call of a loop takes through time together."""


class CompiledSelectiveScan(torch.autograd.Function):
    """`naive.selective_scan` on float32 or float64 tensors of a CPU: y and h from u, Δ, A, B, C, D and h_0.

    h_t = e^{Δ_t A} h_{t−1} + Δ_t B_t u_t,    y_t = C_t h_t + D u_t
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        (batch, T, width), N = u.shape, A.shape[1]
        flops.count("selective_scan", 2 * u.numel() * N)
        exponent = (A.T * math.log2(math.e)).contiguous()
        kept = u.new_empty(batch, -(-T // LENGTH) + 1, N, width)
        kept[:, 0] = h.mT
        skip = u.new_zeros(width) if D is None else D
        y = torch.empty_like(u, memory_format=torch.contiguous_format)
        arrays = [array(x) for x in (u, delta, exponent, B, C, skip, kept, y)]
        spread(lambda start, stop: _forward(start, stop, *arrays), batch * -(-width // CHANNELS))
        ctx.save_for_backward(u, delta, exponent, B, C, skip, kept)
        return y, kept[:, -1].mT.contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, exponent, B, C, skip, kept = ctx.saved_tensors
        (batch, T, width), N = u.shape, B.shape[2]
        flops.count("selective_scan", 4 * u.numel() * N)
        blocks = -(-width // CHANNELS)
        du, d_delta = (torch.empty_like(u, memory_format=torch.contiguous_format) for _ in range(2))
        dB, dC = (u.new_empty(batch, blocks, T, N) for _ in range(2))
        dA, dD, g = u.new_empty(batch, N, width), u.new_empty(batch, width), dh.mT.contiguous()
        arrays = [array(x) for x in (u, delta, exponent, B, C, skip, kept, dy, g, du, d_delta, dA, dB, dC, dD)]
        spread(lambda start, stop: _backward(start, stop, *arrays), batch * blocks)
        return du, d_delta, dA.sum(0).T, dB.sum(1), dC.sum(1), dD.sum(0) if ctx.needs_input_grad[5] else None, g.mT


def exp2(x: float) -> float:
    """2^x inside a loop, in x's own precision; of float32 vectorised, and 0 below −126.5."""
    return 2.0**x


@overload(exp2, jit_options={"fastmath": FAST})
def _exp2(x: Any) -> Any:
    return _exp2_32 if x == types.float32 else _exp2_64


def _exp2_64(x: Any) -> Any:
    return math.exp(x * math.log(2))


def _exp2_32(x: Any) -> Any:
    # x = n + r with |r| ≤ ½; 2^r by its series, 2^n by putting n where the exponent is stored (all zeros: 0).
    c = min(max(x, np.float32(-127.0)), np.float32(127.0))
    n = np.floor(c + np.float32(0.5))
    r = c - n
    p = np.float32(1.5403530393381608e-4)
    p = p * r + np.float32(1.3333558146428443e-3)
    p = p * r + np.float32(9.618129107628477e-3)
    p = p * r + np.float32(5.550410866482158e-2)
    p = p * r + np.float32(2.402265069591007e-1)
    p = p * r + np.float32(6.931471805599453e-1)
    p = p * r + np.float32(1)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@loop
def _forward(start, stop, u, delta, A, B, C, D, kept, y):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (b, block) takes the channels of a block through all steps of row b."""
    _, T, width = u.shape
    N = A.shape[0]
    blocks = -(-width // CHANNELS)
    A_, h = np.zeros(N * CHANNELS, u.dtype), np.zeros(N * CHANNELS, u.dtype)
    u_, delta_, D_ = np.zeros(CHANNELS, u.dtype), np.zeros(CHANNELS, u.dtype), np.zeros(CHANNELS, u.dtype)
    drive, y_ = np.zeros(CHANNELS, u.dtype), np.zeros(CHANNELS, u.dtype)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * CHANNELS
        last = min(first + CHANNELS, width)
        size = last - first
        for x in (u_, delta_, D_):  # channels beyond the last stand still at zero
            x[size:] = 0
        D_[:size] = D[first:last]
        _gather(A[:, first:last], A_)
        _gather(kept[b, 0, :, first:last], h)
        for t in range(T):
            u_[:size], delta_[:size] = u[b, t, first:last], delta[b, t, first:last]
            for c in range(CHANNELS):
                drive[c] = delta_[c] * u_[c]
                y_[c] = D_[c] * u_[c]
            for n in range(N):
                row = n * CHANNELS
                B_, C_ = B[b, t, n], C[b, t, n]
                for c in range(CHANNELS):
                    h[row + c] = exp2(delta_[c] * A_[row + c]) * h[row + c] + drive[c] * B_
                    y_[c] += C_ * h[row + c]
            y[b, t, first:last] = y_[:size]
            if (t + 1) % LENGTH == 0 or t == T - 1:
                for n in range(N):
                    kept[b, t // LENGTH + 1, n, first:last] = h[n * CHANNELS : n * CHANNELS + size]


@inlined
def _gather(x, rows):  # type: ignore[no-untyped-def]
    """(N, ≤ CHANNELS) into a contiguous (N · CHANNELS), zeros behind each row."""
    for n in range(x.shape[0]):
        rows[n * CHANNELS : n * CHANNELS + x.shape[1]] = x[n]
        rows[n * CHANNELS + x.shape[1] : (n + 1) * CHANNELS] = 0


@loop
def _backward(start, stop, u, delta, A, B, C, D, kept, dy, g_last, du, d_delta, dA, dB, dC, dD):  # type: ignore[no-untyped-def]
    _, T, width = u.shape
    N = A.shape[0]
    blocks = -(-width // CHANNELS)
    states = N * CHANNELS
    ln2 = np.log(np.full(1, 2, u.dtype))[0]
    A_, h, decay = np.zeros(states, u.dtype), np.zeros(states, u.dtype), np.zeros(states, u.dtype)
    g, dA_ = np.zeros(states, u.dtype), np.zeros(states, u.dtype)
    hs, decays = np.zeros((LENGTH + 1) * states, u.dtype), np.zeros(LENGTH * states, u.dtype)
    us, deltas = np.zeros(LENGTH * CHANNELS, u.dtype), np.zeros(LENGTH * CHANNELS, u.dtype)
    dy_, D_, dD_ = np.zeros(CHANNELS, u.dtype), np.zeros(CHANNELS, u.dtype), np.zeros(CHANNELS, u.dtype)
    drive, gB, Ae = np.zeros(CHANNELS, u.dtype), np.zeros(CHANNELS, u.dtype), np.zeros(CHANNELS, u.dtype)
    for item in range(start, stop):
        b, block = item // blocks, item % blocks
        first = block * CHANNELS
        last = min(first + CHANNELS, width)
        size = last - first
        for x in (us, deltas, dy_, D_):
            x[:] = 0
        D_[:size] = D[first:last]
        dD_[:] = 0
        dA_[:] = 0
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
                u_[:size], delta_[:size] = u[b, t, first:last], delta[b, t, first:last]
                for c in range(CHANNELS):
                    drive[c] = delta_[c] * u_[c]
                for n in range(N):
                    row = n * CHANNELS
                    B_ = B[b, t, n]
                    for c in range(CHANNELS):
                        decay[row + c] = exp2(delta_[c] * A_[row + c])
                        h[row + c] = decay[row + c] * h[row + c] + drive[c] * B_
                decays[j * states : (j + 1) * states] = decay
                hs[(j + 1) * states : (j + 2) * states] = h
            for j in range(steps - 1, -1, -1):
                t = origin + j
                u_, delta_ = us[j * CHANNELS : (j + 1) * CHANNELS], deltas[j * CHANNELS : (j + 1) * CHANNELS]
                decay_, before = decays[j * states : (j + 1) * states], hs[j * states : (j + 1) * states]
                after = hs[(j + 1) * states : (j + 2) * states]
                dy_[:size] = dy[b, t, first:last]
                for c in range(CHANNELS):
                    drive[c] = delta_[c] * u_[c]
                    gB[c] = 0
                    Ae[c] = 0
                for n in range(N):
                    row = n * CHANNELS
                    B_, C_ = B[b, t, n], C[b, t, n]
                    dB_, dC_ = B_ - B_, C_ - C_
                    for c in range(CHANNELS):
                        g_ = g[row + c] + dy_[c] * C_
                        dC_ += dy_[c] * after[row + c]
                        dB_ += drive[c] * g_
                        gB[c] += g_ * B_
                        g_ *= decay_[row + c]
                        e = g_ * before[row + c]
                        dA_[row + c] += delta_[c] * e
                        Ae[c] += A_[row + c] * e
                        g[row + c] = g_
                    dB[b, block, t, n], dC[b, block, t, n] = dB_, dC_
                for c in range(CHANNELS):
                    Ae[c] = ln2 * Ae[c] + u_[c] * gB[c]
                    gB[c] = delta_[c] * gB[c] + D_[c] * dy_[c]
                    dD_[c] += u_[c] * dy_[c]
                du[b, t, first:last], d_delta[b, t, first:last] = gB[:size], Ae[:size]
        for n in range(N):
            row = n * CHANNELS
            dA[b, n, first:last], g_last[b, n, first:last] = dA_[row : row + size], g[row : row + size]
        dD[b, first:last] = dD_[:size]
