"""The real part of a Fourier transform over time and features (Lee-Thorp et al. 2021, arXiv:2105.03824, eq. 3).

For real x the features above D/2 mirror those below, Y_{t,k} = conj Y_{−t,−k}: half of the transform is enough.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops
from zoo.ops.kernel_log import log_kernel
from zoo.ops.precision import at_least_fp32
from zoo.ops.step_by_step import finite_or


def fourier_naive(x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """Re F_T(F_D(x)), without normalisation."""
    return torch.fft.fft2(x, dim=(1, 2)).real


def fourier(x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """See `fourier_naive`; in float32 at least, and in x's dtype at the end.

    Counts a real FFT over the features at each step, and a complex one (two real ones) over time for each of the
    D/2 + 1 frequencies that determine the others; as many again backward.
    """
    log_kernel("fourier", "rfft2")
    wide = at_least_fp32(x)
    return finite_or(Fourier.apply(wide), lambda: fourier_naive(wide)).to(x.dtype)


class Fourier(torch.autograd.Function):
    """The matrix cos(2π (ts/T + kd/D)) is symmetric, so the gradient is the same transform."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        (B, T, D), half = x.shape, x.shape[2] // 2 + 1
        flops.count("fourier", B * (T * flops.rfft(D) + 2 * half * flops.rfft(T)))
        y = torch.fft.rfft2(x, dim=(1, 2)).real
        if half == D:
            return y.contiguous()
        rest = y[:, :, 1 : D - half + 1].flip(2)
        return torch.cat([y, torch.cat([rest[:, :1], rest[:, 1:].flip(1)], dim=1)], dim=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return Fourier.apply(grads[0])
