"""The selective scan a chunk of time at a time, through the diagonal scan, keeping states at chunk borders only.

All states of a sequence are T·D·N numbers, N times what any other tensor of the layer holds. The forward pass makes
those of one chunk, reads y off them and drops all but the last; the backward pass makes them again, from the last chunk
to the first. With g the gradient that reaches each state (see `zoo.ops.diagonal_scan.chunked`),

    g_t = C_t dy_t + e^{Δ_{t+1} A} g_{t+1},    e_t = g_t e^{Δ_t A} h_{t−1},
    dC_t = Σ_d dy_t h_t,    dB_t = Σ_d Δ_t u_t g_t,    du_t = Δ_t Σ_n g_t B_t,
    dA = Σ_t Δ_t e_t,    dΔ_t = Σ_n (A e_t + u_t g_t B_t),    dh_0 = e^{Δ_1 A} g_1
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops, forms, precision
from zoo.ops.diagonal_scan.chunked import WIDE, recur
from zoo.ops.kernel_log import log_kernel
from zoo.ops.selective_scan import naive, official

BUDGET = 1 << 19
"""Numbers in the states of one chunk, so that its handful of temporaries stays in a CPU's cache."""
SHORTEST = 16
"""Steps per chunk, however wide the layer: one state in 16 is kept for the backward pass."""


def selective_scan(
    u: Float[Tensor, "B T D"],
    delta: Float[Tensor, "B T D"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B T N"],
    C: Float[Tensor, "B T N"],
    D: Float[Tensor, " D"] | None = None,
    state: Float[Tensor, "B D N"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    """See `naive.selective_scan`. Float32 at least, autocast or not.

    On a CPU with numba it is the loop of `compiled.py`. A `chunk` asks for the form of this file, with that many steps
    in a chunk; by default what fits. Counts its recurrence: 2 FLOPs per element of the states forward and 4 backward.
    """
    (batch, T, width), N = u.shape, A.shape[1]
    if T == 1:
        y, h = naive.step(u[:, 0], delta[:, 0], A, B[:, 0], C[:, 0], D, state)
        return y[:, None], h
    if chunk is None and (served := official.selective_scan(u, delta, A, B, C, D, state)) is not None:
        return served
    with precision.no_autocast(u.device):
        dtype = precision.promote(u, delta, A, B, C, D, state)
        h = u.new_zeros(batch, width, N, dtype=dtype) if state is None else state.to(dtype)
        inputs = [x.to(dtype) for x in (u, delta, A, B, C)]
        skip = None if D is None else D.to(dtype)
        if chunk is None and forms.supports(*inputs, skip, h):
            from zoo.ops.cpu.selective_scan import CompiledSelectiveScan  # loads numba

            log_kernel("selective_scan", "compiled loop")
            y, h = CompiledSelectiveScan.apply(*inputs, skip, h)
            return y.to(u.dtype), h
        log_kernel("selective_scan", "chunked")
        L = min(T, max(SHORTEST, BUDGET // max(1, batch * width * N)) if chunk is None else chunk)
        y, h = _SelectiveScan.apply(*inputs, h, L)
        return (y if skip is None else y + skip * inputs[0]).to(u.dtype), h


def gated_selective_scan(
    u: Float[Tensor, "B T D"],
    delta: Float[Tensor, "B T D"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B T N"],
    C: Float[Tensor, "B T N"],
    D: Float[Tensor, " D"],
    z: Float[Tensor, "B T D"],
    bias: Float[Tensor, " D"],
    state: Float[Tensor, "B D N"] | None = None,
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    """See `naive.gated_selective_scan`. Float32 at least inside, autocast or not; y is in u's dtype.

    On a CPU with numba it is the loop of `compiled.py`, which reads u, Δ, B, C and z as they are if all are bfloat16.
    """
    varying, dtype = (u, delta, B, C, z), precision.promote(u, delta, A, B, C, D, z, bias, state)
    half = all(x.dtype == torch.bfloat16 for x in varying)
    with precision.no_autocast(u.device):
        h = u.new_zeros(len(u), *A.shape, dtype=dtype) if state is None else state.to(dtype)
        A, D, bias = (x.to(dtype) for x in (A, D, bias))
        if u.shape[1] > 1 and forms.supports(A, D, bias, h, *(precision.at_least_fp32(x[:1, :1]) for x in varying)):
            from zoo.ops.cpu.selective_scan import CompiledSelectiveScan  # loads numba

            log_kernel("selective_scan", "compiled loop")
            u_, delta, B, C, z = varying if half and dtype == torch.float32 else (x.to(dtype) for x in varying)
            y, h = CompiledSelectiveScan.apply(u_, delta, A, B, C, D, h, z, bias)
            return y.to(u.dtype), h
        delta = F.softplus(delta.to(dtype) + bias)
        y, h = selective_scan(precision.at_least_fp32(u), delta, A, B, C, D, None if state is None else h)
        return (y * F.silu(precision.at_least_fp32(z))).to(u.dtype), h


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, L: int
    ) -> tuple[Tensor, Tensor]:
        flops.count("selective_scan", 2 * u.numel() * A.shape[1])
        y, borders = torch.empty_like(u), []
        for part in _parts(u.shape[1], L):
            borders.append(h)
            states = _run(*_terms(u[:, part], delta[:, part], A, B[:, part]), h)
            torch.matmul(states, C[:, part, :, None], out=y[:, part, :, None])
            h = states[:, -1].clone()  # a copy: a view would keep every state of its chunk
        ctx.save_for_backward(u, delta, A, B, C, *borders)
        ctx.L = L
        return y, h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, carry: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, *borders = ctx.saved_tensors
        flops.count("selective_scan", 4 * u.numel() * A.shape[1])
        du, d_delta, dA, dB, dC = (torch.zeros_like(x) for x in (u, delta, A, B, C))
        with precision.no_autocast(u.device):
            for part, h0 in reversed(list(zip(_parts(u.shape[1], ctx.L), borders, strict=True))):
                u_, delta_, B_, dy_ = u[:, part], delta[:, part], B[:, part], dy[:, part]
                a, b = _terms(u_, delta_, A, B_)
                h = _run(a, b, h0)
                dC[:, part] = (dy_[:, :, None] @ h).squeeze(2)
                direct = dy_[..., None] * C[:, part, None]
                direct[:, -1] += carry
                g = _run(a[:, 1:], direct, None, reverse=True)
                carry = a[:, 0] * g[:, 0]
                dB[:, part] = ((delta_ * u_)[:, :, None] @ g).squeeze(2)
                gB = (g @ B_[..., None]).squeeze(3)
                du[:, part] = delta_ * gB
                e = a.mul_(g)
                e[:, 1:] *= h[:, :-1]
                e[:, 0] *= h0
                dA += torch.mul(e, delta_[..., None], out=h).sum((0, 1))
                d_delta[:, part] = e.mul_(A).sum(-1).addcmul_(u_, gB)
        return du, d_delta, dA, dB, dC, carry, None


def _parts(T: int, L: int) -> list[slice]:
    return [slice(start, min(start + L, T)) for start in range(0, T, L)]


def _terms(u: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """e^{Δ A} and Δ B u, (B, L, D, N) each."""
    return (delta[..., None] * A).exp_(), (delta * u)[..., None] * B[:, :, None]


def _run(a: Tensor, b: Tensor, h: Tensor | None, *, reverse: bool = False) -> Tensor:
    """As `recur`, but b may be overwritten. Where one step is work enough, time is not cut up, nor copied for it."""
    T = b.shape[1]
    if b.is_meta or b[:, 0].numel() <= WIDE // 2:
        return recur(a, b, h, reverse=reverse)
    if h is not None:
        b[:, 0].addcmul_(a[:, 0], h)
    for t in range(T - 2, -1, -1) if reverse else range(1, T):
        b[:, t].addcmul_(a[:, t], b[:, t + 1 if reverse else t - 1])
    return b
