"""The gated selective scan as a compiled loop: the N states of a block of channels stay in L1 while time goes by.

u, Δ, B, C, z, and y and their gradients may be bfloat16, which is widened and narrowed as it is read and written.

No state is written to memory but every LENGTH-th. The backward pass goes through the spans between those from the last
to the first: it runs one forward again, keeping its states and decays in L2, then walks it back. With g the gradient
that reaches each state,

    g_t = C_t dy_t + e^{Δ_{t+1} A} g_{t+1},    e_t = g_t e^{Δ_t A} h_{t−1},
    dC_t = Σ_d dy_t h_t,    dB_t = Σ_d Δ_t u_t g_t,    du_t = Δ_t Σ_n g_t B_t,
    dA = Σ_t Δ_t e_t,    dΔ_t = Σ_n (A e_t + u_t g_t B_t),    dh_0 = e^{Δ_1 A} g_1

Arrays of states are laid out (N, channels), so that loops over channels are contiguous, and powers are taken of 2: A
comes times log₂ e. Loops take two of the N at once.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.bfloat16 import narrowed, widened
from zoo.ops.cpu.jit import called, copy, copy_rows, exp2, inlined, loop, sigmoid, softplus
from zoo.ops.cpu.threads import once_differentiable, run

LENGTH = 16
"""Steps between two kept states."""
CHANNELS = 128
"""Channels one call of a loop takes through time together."""


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor, z: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """`naive.gated_selective_scan` of an even N: A, D, h and the bias in float32 or float64, the others in that, or all
    in bfloat16."""
    varying = u, delta, B, C, z
    if not all(x.dtype is torch.bfloat16 for x in varying):
        u, delta, B, C, z = (x.to(A.dtype) for x in varying)
    y, h = CompiledSelectiveScan.apply(u, delta, A, B, C, D, h, z, bias)
    return y, h


class Inputs(NamedTuple):
    u: Tensor  # (batch, T, width), as are Δ and z
    delta: Tensor
    A: Tensor  # (N, width), times log₂ e
    B: Tensor  # (batch, T, N)
    C: Tensor
    D: Tensor  # (width,)
    kept: Tensor  # (batch, spans + 1, N, width): the state before every span, and after the last
    z: Tensor
    bias: Tensor  # (width,)


class Gradients(NamedTuple):
    y: Tensor
    h: Tensor  # (batch, N, width): after the last step, and then before the first
    u: Tensor
    delta: Tensor
    A: Tensor  # (batch, N, width)
    B: Tensor  # (batch, blocks of channels, T, N)
    C: Tensor
    D: Tensor  # (batch, width)
    z: Tensor
    bias: Tensor


class CompiledSelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        u, delta, A, B, C, D, h, z, bias = given
        (batch, T, width), N = u.shape, A.shape[1]
        flops.count("selective_scan", 2 * u.numel() * N)
        kept, y = h.new_empty(batch, -(-T // LENGTH) + 1, N, width), u.new_empty(u.shape)
        kept[:, 0] = h.mT
        A, z = (A.T * math.log2(math.e)).contiguous(), z.contiguous()
        x = Inputs(u=u, delta=delta, A=A, B=B, C=C, D=D, kept=kept, z=z, bias=bias)
        ctx.save_for_backward(*x)
        run(_forward, batch * -(-width // CHANNELS), x, y)
        return y, kept[:, -1].mT.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor | None, ...]:
        x = Inputs(*ctx.saved_tensors)
        (batch, T, width), N, blocks = x.u.shape, len(x.A), -(-x.u.shape[2] // CHANNELS)
        flops.count("selective_scan", 4 * x.u.numel() * N)
        du, d_delta, dz = (x.u.new_empty(x.u.shape) for _ in range(3))
        dh = dh.mT.clone(memory_format=torch.contiguous_format)  # which the loop overwrites
        dA, dD, d_bias = torch.empty_like(dh), dh.new_empty(batch, width), dh.new_empty(batch, width)
        dy, (dB, dC) = dy.to(x.u.dtype), (dh.new_empty(batch, blocks, T, N) for _ in range(2))
        d = Gradients(y=dy, h=dh, u=du, delta=d_delta, A=dA, B=dB, C=dC, D=dD, z=dz, bias=d_bias)
        run(_backward, batch * blocks, x, d)
        return du, d_delta, dA.sum(0).T, dB.sum(1), dC.sum(1), dD.sum(0), dh.mT, dz, d_bias.sum(0)


@called
def _softplus(delta, bias):  # type: ignore[no-untyped-def]
    """softplus(Δ + bias) in place of Δ. The rows of gates are functions of their own, short enough to vectorise."""
    for c in range(len(delta)):
        delta[c] = softplus(delta[c] + bias[c])


@called
def _softplus_backward(d_delta, delta, bias):  # type: ignore[no-untyped-def]
    for c in range(len(delta)):
        d_delta[c] *= sigmoid(delta[c] + bias[c])


@called
def _gate(y, z):  # type: ignore[no-untyped-def]
    """y ⊙ SiLU(z) in place of y."""
    for c in range(len(y)):
        y[c] *= z[c] * sigmoid(z[c])


@called
def _gate_backward(dy, z, slope):  # type: ignore[no-untyped-def]
    """dy ⊙ SiLU(z) in place of dy, and what times y is dz."""
    for c in range(len(dy)):
        gate = sigmoid(z[c])
        slope[c] = dy[c] * gate * (dy.dtype.type(1) + z[c] - z[c] * gate)
        dy[c] *= z[c] * gate


@inlined
def _load(x, out):  # type: ignore[no-untyped-def]
    """Zeros stand behind what there is of x."""
    for c in range(len(x)):
        out[c] = widened(x[c])
    for c in range(len(x), len(out)):
        out[c] = 0


@inlined
def _load_states(x, out):  # type: ignore[no-untyped-def]
    for n in range(len(x)):
        _load(x[n], out[n])


@inlined
def _store(x, out):  # type: ignore[no-untyped-def]
    for c in range(len(out)):
        out[c] = narrowed(x[c], out)


@loop
def _forward(start, stop, x, y):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (b, block) takes the channels of a block through all steps of row b."""
    _, T, width = y.shape
    N, blocks, dtype = len(x.A), -(-width // CHANNELS), x.A.dtype
    A, h, B, C = np.zeros((N, CHANNELS), dtype), np.zeros((N, CHANNELS), dtype), np.zeros(N, dtype), np.zeros(N, dtype)
    u, delta, z = np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype)
    D, bias, out = np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype)
    for item in range(start, stop):
        b, first = item // blocks, item % blocks * CHANNELS
        last = min(first + CHANNELS, width)
        _load_states(x.A[:, first:last], A)
        _load_states(x.kept[b, 0, :, first:last], h)
        _load(x.D[first:last], D)
        _load(x.bias[first:last], bias)
        for t in range(T):
            _load(x.u[b, t, first:last], u)
            _load(x.delta[b, t, first:last], delta)
            _load(x.B[b, t], B)
            _load(x.C[b, t], C)
            _load(x.z[b, t, first:last], z)
            _softplus(delta, bias)
            _advance(A, B, C, D, u, delta, h, out)
            _gate(out, z)
            _store(out, y[b, t, first:last])
            if (t + 1) % LENGTH == 0 or t == T - 1:
                copy_rows(h, x.kept[b, t // LENGTH + 1, :, first:last])


@inlined
def _advance(A, B, C, D, u, delta, h, y):  # type: ignore[no-untyped-def]
    """One step: h and y."""
    for c in range(CHANNELS):
        y[c] = D[c] * u[c]
        u[c] *= delta[c]
    for n in range(0, len(A), 2):
        B0, B1, C0, C1 = B[n], B[n + 1], C[n], C[n + 1]
        for c in range(CHANNELS):
            h0 = exp2(delta[c] * A[n, c]) * h[n, c] + u[c] * B0
            h1 = exp2(delta[c] * A[n + 1, c]) * h[n + 1, c] + u[c] * B1
            y[c] += C0 * h0 + C1 * h1
            h[n, c], h[n + 1, c] = h0, h1


@loop
def _backward(start, stop, x, d):  # type: ignore[no-untyped-def]
    _, T, width = x.u.shape
    N, blocks, dtype = len(x.A), -(-width // CHANNELS), x.A.dtype
    A, g, dA = np.zeros((N, CHANNELS), dtype), np.zeros((N, CHANNELS), dtype), np.zeros((N, CHANNELS), dtype)
    states, decays = np.zeros((LENGTH + 1, N, CHANNELS), dtype), np.zeros((LENGTH, N, CHANNELS), dtype)
    us, deltas = np.zeros((LENGTH, CHANNELS), dtype), np.zeros((LENGTH, CHANNELS), dtype)
    B, C, dB, dC = np.zeros(N, dtype), np.zeros(N, dtype), np.zeros(N, dtype), np.zeros(N, dtype)
    D, bias, z = np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype)
    dy, du, d_delta = np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype)
    y, slope = np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype)
    dD, d_bias = np.zeros(CHANNELS, dtype), np.zeros(CHANNELS, dtype)
    for item in range(start, stop):
        b, block = item // blocks, item % blocks
        first = block * CHANNELS
        last = min(first + CHANNELS, width)
        _load_states(x.A[:, first:last], A)
        _load_states(d.h[b, :, first:last], g)
        _load(x.D[first:last], D)
        _load(x.bias[first:last], bias)
        dA[:] = 0
        dD[:] = 0
        d_bias[:] = 0
        for span in range(-(-T // LENGTH) - 1, -1, -1):
            origin = span * LENGTH
            steps = min(LENGTH, T - origin)
            _load_states(x.kept[b, span, :, first:last], states[0])
            for j in range(steps):
                _load(x.u[b, origin + j, first:last], us[j])
                _load(x.delta[b, origin + j, first:last], deltas[j])
                _load(x.B[b, origin + j], B)
                _softplus(deltas[j], bias)
                _replay(A, B, us[j], deltas[j], states[j], decays[j], states[j + 1])
            for j in range(steps - 1, -1, -1):
                t = origin + j
                _load(d.y[b, t, first:last], dy)
                _load(x.B[b, t], B)
                _load(x.C[b, t], C)
                _load(x.z[b, t, first:last], z)
                _gate_backward(dy, z, slope)
                step, slopes = (A, B, C, D, us[j], deltas[j], decays[j]), (dA, dB, dC, dD, du, d_delta)
                _walk_back(step, states[j], states[j + 1], dy, y, g, slopes)
                copy(dB, d.B[b, block, t])
                copy(dC, d.C[b, block, t])
                _load(x.delta[b, t, first:last], z)
                _softplus_backward(d_delta, z, bias)
                for c in range(CHANNELS):
                    d_bias[c] += d_delta[c]
                    slope[c] *= y[c]
                _store(slope, d.z[b, t, first:last])
                _store(du, d.u[b, t, first:last])
                _store(d_delta, d.delta[b, t, first:last])
        copy_rows(dA, d.A[b, :, first:last])
        copy_rows(g, d.h[b, :, first:last])
        copy(dD, d.D[b, first:last])
        copy(d_bias, d.bias[b, first:last])


@inlined
def _replay(A, B, u, delta, before, decay, after):  # type: ignore[no-untyped-def]
    """One step forward again: its decays, and the state after it."""
    for n in range(0, len(A), 2):
        B0, B1 = B[n], B[n + 1]
        for c in range(CHANNELS):
            a0, a1, added = exp2(delta[c] * A[n, c]), exp2(delta[c] * A[n + 1, c]), delta[c] * u[c]
            after[n, c], after[n + 1, c] = a0 * before[n, c] + added * B0, a1 * before[n + 1, c] + added * B1
            decay[n, c], decay[n + 1, c] = a0, a1


@inlined
def _walk_back(step, before, after, dy, y, g, slopes):  # type: ignore[no-untyped-def]
    """One step backward: y before its gate, all gradients of the step, and g of the step before."""
    (A, B, C, D, u, delta, decay), (dA, dB, dC, dD, du, d_delta) = step, slopes
    zero, ln2 = dy.dtype.type(0), dy.dtype.type(0.6931471805599453)
    for c in range(CHANNELS):
        y[c] = D[c] * u[c]
        dD[c] += dy[c] * u[c]
        du[c] = 0
        d_delta[c] = 0
    for n in range(0, len(A), 2):
        B0, B1, C0, C1 = B[n], B[n + 1], C[n], C[n + 1]
        dB0, dB1, dC0, dC1 = zero, zero, zero, zero
        for c in range(CHANNELS):
            added, h0, h1 = delta[c] * u[c], after[n, c], after[n + 1, c]
            g0, g1 = g[n, c] + dy[c] * C0, g[n + 1, c] + dy[c] * C1
            y[c] += C0 * h0 + C1 * h1
            dC0 += dy[c] * h0
            dC1 += dy[c] * h1
            dB0 += added * g0
            dB1 += added * g1
            du[c] += g0 * B0 + g1 * B1
            g0 *= decay[n, c]
            g1 *= decay[n + 1, c]
            e0, e1 = g0 * before[n, c], g1 * before[n + 1, c]
            dA[n, c] += delta[c] * e0
            dA[n + 1, c] += delta[c] * e1
            d_delta[c] += A[n, c] * e0 + A[n + 1, c] * e1
            g[n, c], g[n + 1, c] = g0, g1
        dB[n], dB[n + 1], dC[n], dC[n + 1] = dB0, dB1, dC0, dC1
    for c in range(CHANNELS):
        d_delta[c] = ln2 * d_delta[c] + u[c] * du[c]
        du[c] = delta[c] * du[c] + D[c] * dy[c]
