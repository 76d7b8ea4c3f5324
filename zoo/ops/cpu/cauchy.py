"""The Cauchy sums as a compiled loop, which never writes out every mode at every frequency.

With (x, y) for 1/q_n, the sums of `woodbury.sums` are, in real numbers,

    Re q = β κ² − S²,    Im q = −2 α S κ
    Re r_j = −Σ_n u_jn S y + w_jn κ x,    Im r_j = Σ_n u_jn S x − w_jn κ y

The backward pass computes 1/q again, and goes on from the gradient of (x, y) by d(1/q) = −dq / q².
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import inlined, loop
from zoo.ops.cpu.threads import once_differentiable, run

BLOCK = 256
"""Frequencies taken through all modes together."""


def sums(alpha: Tensor, beta: Tensor, u: Tensor, w: Tensor, S: Tensor, kappa: Tensor) -> Tensor:
    """`woodbury.sums` of float32 or float64, from α and β (H, M), u and w (H, J, M), S and κ (F,)."""
    return torch.view_as_complex(CompiledSums.apply(alpha, beta, u, w, S, kappa))


class Modes(NamedTuple):
    alpha: Tensor  # (H, M)
    beta: Tensor
    u: Tensor  # (H, J, M)
    w: Tensor


class Frequencies(NamedTuple):
    S: Tensor  # (F,)
    kappa: Tensor


class CompiledSums(torch.autograd.Function):
    """Their real and imaginary parts, (H, J, F, 2)."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, beta: Tensor, u: Tensor, w: Tensor, S: Tensor, kappa: Tensor) -> Tensor:
        flops.count("cauchy", 8 * u.numel() * len(S))
        ctx.save_for_backward(alpha, beta, u, w, S, kappa)
        r = u.new_empty(*u.shape[:2], len(S), 2)
        modes, at = Modes(alpha=alpha, beta=beta, u=u, w=w), Frequencies(S=S, kappa=kappa)
        run(_forward, len(u), modes, at, r)
        return r

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dr: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: what is computed again can be read once
        modes, at = Modes(*saved[:4]), Frequencies(*saved[4:])
        flops.count("cauchy", 16 * modes.u.numel() * dr.shape[2])
        d = Modes(*(torch.zeros_like(x, memory_format=torch.contiguous_format) for x in modes))
        run(_backward, len(dr), modes, at, dr, d)
        return *d, None, None


@loop
def _forward(start, stop, modes, at, r):  # type: ignore[no-untyped-def]
    """Systems start … stop − 1."""
    _, J, M = modes.u.shape
    re, im, scaled = np.empty((J, BLOCK), r.dtype), np.empty((J, BLOCK), r.dtype), np.empty((4, BLOCK), r.dtype)
    for h in range(start, stop):
        for first in range(0, len(at.S), BLOCK):
            S, kappa = at.S[first : first + BLOCK], at.kappa[first : first + BLOCK]
            re[:] = 0
            im[:] = 0
            for m in range(M):
                _invert(modes.alpha[h, m], modes.beta[h, m], S, kappa, scaled)
                for j in range(J):
                    u, w = modes.u[h, j, m], modes.w[h, j, m]
                    for f in range(len(S)):
                        re[j, f] -= u * scaled[1, f] + w * scaled[2, f]
                        im[j, f] += u * scaled[0, f] - w * scaled[3, f]
            for j in range(J):
                for f in range(len(S)):
                    r[h, j, first + f, 0], r[h, j, first + f, 1] = re[j, f], im[j, f]


@inlined
def _invert(alpha, beta, S, kappa, scaled):  # type: ignore[no-untyped-def]
    """S x, S y, κ x and κ y of 1 / q = x + i y."""
    for f in range(len(S)):
        re = beta * kappa[f] * kappa[f] - S[f] * S[f]
        im = -(alpha + alpha) * S[f] * kappa[f]
        squared = re * re + im * im
        x, y = re / squared, -im / squared
        scaled[0, f], scaled[1, f], scaled[2, f], scaled[3, f] = S[f] * x, S[f] * y, kappa[f] * x, kappa[f] * y


@loop
def _backward(start, stop, modes, at, dr, d):  # type: ignore[no-untyped-def]
    _, J, M = modes.u.shape
    re, im, scaled = np.empty((J, BLOCK), dr.dtype), np.empty((J, BLOCK), dr.dtype), np.empty((4, BLOCK), dr.dtype)
    dx, dy, zero = np.empty(BLOCK, dr.dtype), np.empty(BLOCK, dr.dtype), dr.dtype.type(0)
    for h in range(start, stop):
        for first in range(0, len(at.S), BLOCK):
            S, kappa = at.S[first : first + BLOCK], at.kappa[first : first + BLOCK]
            for j in range(J):
                for f in range(len(S)):
                    re[j, f], im[j, f] = dr[h, j, first + f, 0], dr[h, j, first + f, 1]
            for m in range(M):
                _invert(modes.alpha[h, m], modes.beta[h, m], S, kappa, scaled)
                dx[:] = 0
                dy[:] = 0
                for j in range(J):
                    u, w, du, dw = modes.u[h, j, m], modes.w[h, j, m], zero, zero
                    for f in range(len(S)):
                        du += im[j, f] * scaled[0, f] - re[j, f] * scaled[1, f]
                        dw -= re[j, f] * scaled[2, f] + im[j, f] * scaled[3, f]
                        dx[f] += u * S[f] * im[j, f] - w * kappa[f] * re[j, f]
                        dy[f] -= u * S[f] * re[j, f] + w * kappa[f] * im[j, f]
                    d.u[h, j, m] += du
                    d.w[h, j, m] += dw
                d_alpha, d_beta = _invert_backward(modes.alpha[h, m], modes.beta[h, m], S, kappa, dx, dy)
                d.alpha[h, m] += d_alpha
                d.beta[h, m] += d_beta


@inlined
def _invert_backward(alpha, beta, S, kappa, dx, dy):  # type: ignore[no-untyped-def]
    d_alpha, d_beta = S.dtype.type(0), S.dtype.type(0)
    for f in range(len(S)):
        re = beta * kappa[f] * kappa[f] - S[f] * S[f]
        im = -(alpha + alpha) * S[f] * kappa[f]
        squared = re * re + im * im
        x, y = re / squared, -im / squared
        xx, xy = y * y - x * x, x * y + x * y  # the conjugate of −1/q²
        d_beta += (xx * dx[f] - xy * dy[f]) * kappa[f] * kappa[f]
        d_alpha -= (xx * dy[f] + xy * dx[f]) * (S[f] + S[f]) * kappa[f]
    return d_alpha, d_beta
