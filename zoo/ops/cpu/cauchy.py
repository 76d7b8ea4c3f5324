"""The Cauchy sums as a compiled loop, which never writes out every mode at every frequency.

With (x, y) for 1/q_n, the sums of `woodbury.sums` are, in real numbers,

    Re q = β κ² − S²,    Im q = −2 α S κ
    Re r_j = −Σ_n u_jn S y + w_jn κ x,    Im r_j = Σ_n u_jn S x − w_jn κ y

The backward pass computes 1/q again, and goes on from the gradient of (x, y) by d(1/q) = −dq / q².
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import inlined, loop
from zoo.ops.cpu.threads import run

BLOCK = 256
"""Frequencies taken through all modes together."""


class CompiledSums(torch.autograd.Function):
    """`woodbury.sums`, as (H, J, F, 2), of α and β (H, M), u and w (H, J, M), S and κ (F,), in one dtype on a CPU."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, beta: Tensor, u: Tensor, w: Tensor, S: Tensor, kappa: Tensor) -> Tensor:
        flops.count("cauchy", 8 * u.numel() * len(S))
        ctx.save_for_backward(alpha, beta, u, w, S, kappa)
        r = u.new_empty(*u.shape[:2], len(S), 2)
        arrays = [alpha, beta, u, w, S, kappa, r]
        run(_forward, len(u), *arrays)
        return r

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dr: Tensor) -> tuple[Tensor | None, ...]:
        flops.count("cauchy", 16 * ctx.saved_tensors[2].numel() * dr.shape[2])
        grads = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in ctx.saved_tensors[:4]]
        arrays = [*ctx.saved_tensors, dr, *grads]
        run(_backward, len(dr), *arrays)
        return *grads, None, None


@loop
def _forward(start, stop, alpha, beta, u, w, S, kappa, r):  # type: ignore[no-untyped-def]
    """Systems start … stop − 1."""
    _, J, M = u.shape
    F = len(S)
    re, im = np.empty(J * BLOCK, S.dtype), np.empty(J * BLOCK, S.dtype)
    Sx, Sy, kx, ky = (
        np.empty(BLOCK, S.dtype),
        np.empty(BLOCK, S.dtype),
        np.empty(BLOCK, S.dtype),
        np.empty(BLOCK, S.dtype),
    )
    for h in range(start, stop):
        for first in range(0, F, BLOCK):
            last = min(first + BLOCK, F)
            n = last - first
            S_, k_ = S[first:last], kappa[first:last]
            re[:] = 0
            im[:] = 0
            for m in range(M):
                _inverse(alpha[h, m], beta[h, m], S_, k_, Sx, Sy, kx, ky)
                for j in range(J):
                    _add(
                        u[h, j, m],
                        w[h, j, m],
                        Sx,
                        Sy,
                        kx,
                        ky,
                        re[j * BLOCK : j * BLOCK + n],
                        im[j * BLOCK : j * BLOCK + n],
                    )
            for j in range(J):
                for f in range(n):
                    r[h, j, first + f, 0] = re[j * BLOCK + f]
                    r[h, j, first + f, 1] = im[j * BLOCK + f]


@inlined
def _inverse(alpha, beta, S, kappa, Sx, Sy, kx, ky):  # type: ignore[no-untyped-def]
    for f in range(len(S)):
        re = beta * kappa[f] * kappa[f] - S[f] * S[f]
        im = -(alpha + alpha) * S[f] * kappa[f]
        squared = re * re + im * im
        x, y = re / squared, -im / squared
        Sx[f], Sy[f] = S[f] * x, S[f] * y
        kx[f], ky[f] = kappa[f] * x, kappa[f] * y


@inlined
def _add(u, w, Sx, Sy, kx, ky, re, im):  # type: ignore[no-untyped-def]
    for f in range(len(re)):
        re[f] -= u * Sy[f] + w * kx[f]
        im[f] += u * Sx[f] - w * ky[f]


@loop
def _backward(start, stop, alpha, beta, u, w, S, kappa, dr, dalpha, dbeta, du, dw):  # type: ignore[no-untyped-def]
    _, J, M = u.shape
    F = len(S)
    re, im = np.empty(J * BLOCK, S.dtype), np.empty(J * BLOCK, S.dtype)
    Sx, Sy, kx, ky = (
        np.empty(BLOCK, S.dtype),
        np.empty(BLOCK, S.dtype),
        np.empty(BLOCK, S.dtype),
        np.empty(BLOCK, S.dtype),
    )
    dx, dy = np.empty(BLOCK, S.dtype), np.empty(BLOCK, S.dtype)
    zero = S.dtype.type(0)
    for h in range(start, stop):
        for first in range(0, F, BLOCK):
            last = min(first + BLOCK, F)
            n = last - first
            S_, k_ = S[first:last], kappa[first:last]
            for j in range(J):
                for f in range(n):
                    re[j * BLOCK + f] = dr[h, j, first + f, 0]
                    im[j * BLOCK + f] = dr[h, j, first + f, 1]
            for m in range(M):
                _inverse(alpha[h, m], beta[h, m], S_, k_, Sx, Sy, kx, ky)
                dx[:] = 0
                dy[:] = 0
                for j in range(J):
                    re_, im_ = re[j * BLOCK : j * BLOCK + n], im[j * BLOCK : j * BLOCK + n]
                    u_, w_, du_, dw_ = u[h, j, m], w[h, j, m], zero, zero
                    for f in range(n):
                        du_ += im_[f] * Sx[f] - re_[f] * Sy[f]
                        dw_ -= re_[f] * kx[f] + im_[f] * ky[f]
                        dx[f] += u_ * S_[f] * im_[f] - w_ * k_[f] * re_[f]
                        dy[f] -= u_ * S_[f] * re_[f] + w_ * k_[f] * im_[f]
                    du[h, j, m] += du_
                    dw[h, j, m] += dw_
                a_, b_, da, db = alpha[h, m], beta[h, m], zero, zero
                for f in range(n):
                    q_re = b_ * k_[f] * k_[f] - S_[f] * S_[f]
                    q_im = -(a_ + a_) * S_[f] * k_[f]
                    squared = q_re * q_re + q_im * q_im
                    x, y = q_re / squared, -q_im / squared
                    xx, xy = y * y - x * x, x * y + x * y  # the conjugate of −1/q²
                    db += (xx * dx[f] - xy * dy[f]) * k_[f] * k_[f]
                    da -= (xx * dy[f] + xy * dx[f]) * (S_[f] + S_[f]) * k_[f]
                dalpha[h, m] += da
                dbeta[h, m] += db
