"""FNet's mixing: the real part of a Fourier transform over time and features (Lee-Thorp et al. 2021, arXiv:2105.03824).

    y = Re F_T(F_D(x)),    y_{t,k} = Σ_s Σ_d cos(2π (t s / T + k d / D)) x_{s,d}        (section 3.2, eq. 3)

without parameters and without normalisation. Every output depends on T itself, so a model has one length, to which the
Backbone pads with zeros.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.architectures import register
from zoo.contract import Mask, Mixed, Mixer, Part, State, Traits
from zoo.layers.tensors import zero_padding
from zoo.ops import flops
from zoo.ops.kernel_log import log_kernel
from zoo.ops.precision import at_least_fp32
from zoo.ops.step_by_step import finite_or


@register(
    family="mixers and transforms",
    paper="Lee-Thorp et al. 2021, FNet: Mixing Tokens with Fourier Transforms, arXiv:2105.03824",
    source="https://github.com/google-research/google-research (f_net)",
    deviations=(
        "padding is zero wherever time is mixed, up to the full length; the official code mixes in the embeddings of "
        "padding tokens, so that its outputs depend on them",
        "no LayerNorm and projection between the embedding and the first layer, no token types, no pooler",
        "initialisation is pre_ln's (1/sqrt(fan_in) for a constant 0.02)",
    ),
    channel=Part("mlp", activation="gelu_tanh"),
    residual="post",
    norm="layer_eps12",
    positions="learned",
)
class Fourier(Mixer):
    """FNet: the real part of a 2-D Fourier transform for attention, Post-LN; never causal, of one fixed length.

    Without parameters; masked steps count as zero.
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False, length="fixed")

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        return fourier(zero_padding(x, mask)), None


def fourier_naive(x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """Re F_T(F_D(x))."""
    return torch.fft.fft2(x, dim=(1, 2)).real


def fourier(x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """See `fourier_naive`; in float32 at least, and in x's dtype at the end.

    Counts a real FFT over the features at each step, and a complex one (two real ones) over time for each of the
    D/2 + 1 frequencies that determine the others; as many again backward.
    """
    log_kernel("fourier", "rfft2")
    wide = at_least_fp32(x)
    return finite_or(HalfTransform.apply(wide), lambda: fourier_naive(wide)).to(x.dtype)


class HalfTransform(torch.autograd.Function):
    """Of real x the features above D/2 mirror those below, Y_{t,k} = conj Y_{−t,−k}: half of the transform is enough.

    The matrix cos(2π (ts/T + kd/D)) is symmetric, so the gradient is the same transform.
    """

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
        return HalfTransform.apply(grads[0])
