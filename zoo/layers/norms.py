"""Normalisation along features, by the names that a Recipe calls it."""

from functools import partial
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.layers.mlp import ACTIVATIONS
from zoo.ops import norms, precision
from zoo.ops.precision import at_least_fp32
from zoo.registry import Table

Gate: TypeAlias = Literal["swish", "sigmoid", "relu", "gelu"]


class LayerNorm(nn.LayerNorm):
    """w ⊙ (x − mean x) / √(var x + ε) + b (Ba et al. 2016, arXiv:1607.06450, section 3.1)."""

    feeds_matmul_only = False
    """Whether only matrix products read the result, which is then rounded to their dtype."""

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return norms.layer(x, self.weight, self.bias, self.eps, dtype=_result(self, x))


class RMSNorm(nn.RMSNorm):
    """w ⊙ x / √(mean x² + ε) (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4)."""

    eps: float
    feeds_matmul_only = False
    """See `LayerNorm`."""

    def scale(self) -> Float[Tensor, " D"]:
        """The factor of each feature."""
        return self.weight

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return norms.rms(x, self.scale(), self.eps, dtype=_result(self, x))


class UnitRMSNorm(RMSNorm):
    """x / RMS(x) · (1 + w), w starting at zero (Gemma, RecurrentGemma)."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def scale(self) -> Float[Tensor, " D"]:
        return 1 + at_least_fp32(self.weight)


class HeadNorm(nn.Module):
    """RMSNorm over the width of a head, times activation(gate) if there is one; in float32 at least."""

    def __init__(self, width: int, eps: float, activation: Gate = "swish", *, weight: bool = True) -> None:
        super().__init__()
        self.width, self.eps, self.activation = width, eps, activation
        self.weight = nn.Parameter(torch.ones(width)) if weight else None

    def forward(self, o: Float[Tensor, "*N V"], gate: Float[Tensor, "*N V"] | None = None) -> Float[Tensor, "*N V"]:
        weight = o.new_ones(self.width) if self.weight is None else self.weight
        if self.activation == "swish" or self.activation == "sigmoid":
            return norms.rms(o, weight, self.eps, gate, self.activation)
        y = norms.rms(o, weight, self.eps)
        return y if gate is None else y * ACTIVATIONS.resolve(self.activation)(gate)

    def reset_parameters(self) -> None:
        """w = 1."""
        if self.weight is not None:
            nn.init.ones_(self.weight)


class GroupRMSNorm(nn.Module):
    """RMSNorm over each of several groups of features alone, with a weight for every feature (fla's GroupNorm)."""

    def __init__(self, groups: int, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        group = at_least_fp32(x).unflatten(-1, (self.groups, -1))
        y = norms.rms(group, group.new_ones(group.shape[-1]), self.eps).flatten(-2)
        return (y * self.weight).to(x.dtype)


NORMS = Table(
    "norm",
    {
        "layer": LayerNorm,
        "layer_eps6": partial(LayerNorm, eps=1e-6),
        "layer_eps12": partial(LayerNorm, eps=1e-12),
        "rms": partial(RMSNorm, eps=1e-6),
        "rms_eps5": partial(RMSNorm, eps=1e-5),
        "rms_one": partial(UnitRMSNorm, eps=1e-6),
        "none": nn.Identity,
    },
)
"""By the names that a Recipe has for them; each makes a norm over a number of features."""


def make_norm(kind: str, width: int) -> nn.Module:
    """The norm called `kind` over `width` features."""
    norm: nn.Module = NORMS.resolve(kind)(width)
    return norm


def _result(norm: LayerNorm | RMSNorm, x: Tensor) -> torch.dtype | None:
    """The dtype of a norm's result; None for x's own."""
    return precision.matmul_dtype(x) if norm.feeds_matmul_only else None


def summed(norm: nn.Module, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """x + y and its norm; without a y, x and its norm."""
    s = x if y is None else x + y
    return s, norm(s)
