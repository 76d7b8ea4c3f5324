"""FNet's mixing: the real part of a Fourier transform over time and features (Lee-Thorp et al. 2021, arXiv:2105.03824).

    y = Re F_T(F_D(x)),    y_{tk} = Σ_s Σ_d cos(2π (ts/T + kd/D)) x_{sd}                     (section 3.2, eq. 3)

without parameters and without normalisation. Every output depends on T itself, so that a model has one length: the
Backbone pads to it with zeros, as the official code pads with the embeddings of padding tokens. Official code:
google-research, f_net/layers.py and f_net/fourier.py.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.contract import LayerContext, Mixer, State, Traits
from zoo.ops import flops, precision
from zoo.ops.kernel_log import log_kernel


class Fourier(Mixer):
    """Re F(x) over all steps and features; no parameters. Masked steps count as zero."""

    traits = Traits(causal="no", bidirectional=True, resumable=False, length="fixed")

    def __init__(self, context: LayerContext) -> None:
        super().__init__(context)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
        with precision.no_autocast(x.device):
            return fourier(precision.at_least_fp32(x)).to(x.dtype), None


def fourier(x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """Re F_T(F_D(x)), in x's precision.

    Counts a real FFT over the features at each step, and a complex one (two real ones) over time for each of the
    D/2 + 1 frequencies that determine the others; as many again backward.
    """
    return _Fourier.apply(x)


class _Fourier(torch.autograd.Function):
    """The matrix cos(2π (ts/T + kd/D)) is symmetric: the gradient is the same transform."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        (B, T, D), half = x.shape, x.shape[2] // 2 + 1
        flops.count("fourier", B * (T * flops.rfft(D) + 2 * half * flops.rfft(T)))
        log_kernel("fourier", "rfft2")
        y = torch.fft.rfft2(x, dim=(1, 2)).real  # features 0 .. D/2; for real x the rest is Y_{t,k} = conj Y_{−t,−k}
        if half == D:
            return y.contiguous()
        rest = y[:, :, 1 : D - half + 1].flip(2)
        return torch.cat([y, torch.cat([rest[:, :1], rest[:, 1:].flip(1)], dim=1)], dim=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Fourier.apply(grads[0])
