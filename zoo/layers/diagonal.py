"""Diagonal linear systems: complex modes that decay and turn each by itself (S4D, H3, S5, LRU)."""

import math
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from zoo.contract import Mask
from zoo.layers import hippo, vandermonde
from zoo.layers.tensors import align_right
from zoo.ops.diagonal_scan import scan
from zoo.ops.long_convolution import convolve

Init: TypeAlias = Literal["lin", "inv", "legs", "real"]
Disc: TypeAlias = Literal["zoh", "bilinear"]


class DiagonalSystem(NamedTuple):
    """N/2 modes x for each of H channels, each standing for itself and its conjugate:

    x_t = Ā x_{t−1} + B̄ u_t,    y_t = 2 Re(C x_t)
    """

    log_A: Complex[Tensor, "H M"]  # noqa: N815
    B: Complex[Tensor, "H M"]
    C: Complex[Tensor, "H M"]

    def kernel(self, T: int) -> Float[Tensor, "H T"]:
        """K_l = 2 Re(C Ā^l B̄) for l < T: from x_0 = 0, y = K ∗ u."""
        return vandermonde.evaluate((self.C * self.B)[None], self.log_A, T)[0]

    def last_state(
        self, u: Float[Tensor, "B T H"], x0: Complex[Tensor, "B H M"], mask: Mask | None
    ) -> Complex[Tensor, "B H M"]:
        """x_n = Ā^n x_0 + Σ_{s<n} Ā^{n−1−s} B̄ u_s after the n valid steps of each row."""
        u, n = align_right(u, mask)
        return torch.exp(n[:, None, None] * self.log_A) * x0 + self.B * vandermonde.accumulate(u, self.log_A)

    def resume(
        self, u: Float[Tensor, "B T H"], x0: Complex[Tensor, "B H M"], mask: Mask | None, skip: Tensor | float = 0.0
    ) -> tuple[Float[Tensor, "B T H"], Complex[Tensor, "B H M"]]:
        """y from x_0 on, with `skip` times u added, and the state after the valid steps."""
        T = u.shape[1]
        if T > 1:
            y = convolve(u, self.kernel(T), skip)
            response = vandermonde.evaluate(self.C * torch.exp(self.log_A) * x0, self.log_A, T)  # 2 Re(C Ā^t x_0)
            return y + response.transpose(1, 2), self.last_state(u, x0, mask)
        x = torch.exp(self.log_A) * x0 + self.B * u[:, 0, :, None]
        y = 2 * (self.C * x).real.sum(-1)[:, None] + skip * u
        return y, x if mask is None else torch.where(mask[:, :, None], x, x0)


def discretise(
    A: Complex[Tensor, "H M"],
    B: Complex[Tensor, "H M"],
    C: Complex[Tensor, "H M"],
    dt: Float[Tensor, "H 1"],
    disc: Disc,
) -> DiagonalSystem:
    """x' = A x + B u in steps of Δ, by zero-order hold or the bilinear transform.

        zoh        Ā = e^{ΔA},                         B̄ = B (e^{ΔA} − 1) / A
        bilinear   Ā = (1 + ΔA/2) / (1 − ΔA/2),        B̄ = Δ B / (1 − ΔA/2)

    Multiplied by reciprocals, as torch divides complex numbers of a CPU one at a time.
    """
    if disc == "zoh":
        return DiagonalSystem(dt * A, B * torch.expm1(dt * A) * A.reciprocal(), C)
    half = 0.5 * dt * A
    inverse = (1 - half).reciprocal()
    return DiagonalSystem(torch.log((1 + half) * inverse), dt * B * inverse, C)


def diagonal_recurrence(
    a: Complex[Tensor, " P"], b: Complex[Tensor, "B T P"], x0: Complex[Tensor, "B P"] | None, mask: Mask | None
) -> Complex[Tensor, "B T P"]:
    """x_t = a x_{t−1} + b_t; at masked steps the state stands still (b must be zero there)."""
    A = a.expand(b.shape) if mask is None else torch.where(mask[..., None], a, torch.ones_like(a))
    return scan(A, b, x0)


@cache
def initial(init: Init, N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Re A, Im A ≤ 0 and B (real) of the N/2 modes, in float64 (paper, section 4; models/s4/s4.py, `dplr` and `nplr`).

    `legs` takes the spectrum of the normal part of HiPPO-LegS, A + P Pᵀ with P = √(n + 1/2). Its B = V* B_LegS has
    arbitrary phases, which a complex normal C absorbs: we keep the moduli, at most 2, where the official code lets the
    eigensolver choose and clips the imaginary part to ±2.
    """
    n = np.arange(N // 2, dtype=np.float64)
    one = np.ones_like(n)
    if init == "lin":
        return -0.5 * one, -math.pi * n, one
    if init == "inv":
        return -0.5 * one, -N / math.pi * (N / (2 * n + 1) - 1), one
    if init == "real":
        return -(n + 1), 0 * n, one
    A, B, P = hippo.transition("legs", N)
    im, V = np.linalg.eigh(-1j * (A + P.T @ P + 0.5 * np.eye(N)))  # −½ I + skew: i·im are eigenvalues
    return -0.5 * one, im[: N // 2], np.minimum(np.abs(V.conj().T @ B)[: N // 2], 2.0)
