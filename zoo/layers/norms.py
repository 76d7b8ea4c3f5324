"""Normalisation along features, by the names that a Recipe calls it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.ops import norms, precision
from zoo.ops.precision import at_least_fp32
from zoo.registry import nearest


class LayerNorm(nn.LayerNorm):
    """w ⊙ (x − mean x) / √(var x + ε) + b (Ba et al. 2016, arXiv:1607.06450, section 3.1)."""

    feeds_matmul_only = False
    """Whether matrix products alone read the result, which then comes in their dtype."""

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return norms.layer(x, self.weight, self.bias, self.eps, dtype=_result(self, x))

    def after(
        self, x: Float[Tensor, "*N D"], y: Float[Tensor, "*N D"]
    ) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "*N D"]]:
        """x + y, and its norm."""
        return norms.summed(x, y, self.weight, self.bias, self.eps, dtype=_result(self, x))


class RMSNorm(nn.RMSNorm):
    """w ⊙ x / √(mean x² + ε) (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4)."""

    eps: float
    feeds_matmul_only = False
    """See `LayerNorm`."""

    def scale(self) -> Float[Tensor, " D"]:
        """What each feature is multiplied by."""
        return self.weight

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return norms.rms(x, self.scale(), self.eps, dtype=_result(self, x))

    def after(
        self, x: Float[Tensor, "*N D"], y: Float[Tensor, "*N D"]
    ) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "*N D"]]:
        """See `LayerNorm`."""
        return norms.summed(x, y, self.scale(), None, self.eps, dtype=_result(self, x))


class UnitRMSNorm(RMSNorm):
    """x / RMS(x) · (1 + w), w starting at zero (Gemma, RecurrentGemma)."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def scale(self) -> Float[Tensor, " D"]:
        return 1 + at_least_fp32(self.weight)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": lambda width: LayerNorm(width),
    "layer_eps6": lambda width: LayerNorm(width, eps=1e-6),
    "layer_eps12": lambda width: LayerNorm(width, eps=1e-12),
    "rms": lambda width: RMSNorm(width, eps=1e-6),
    "rms_eps5": lambda width: RMSNorm(width, eps=1e-5),
    "rms_one": lambda width: UnitRMSNorm(width, eps=1e-6),
    "none": lambda width: nn.Identity(),
}


def make_norm(kind: str, width: int) -> nn.Module:
    """The norm called `kind` over `width` features.

    Raises:
        ValueError: unknown.
    """
    if kind not in NORMS:
        raise ValueError(f"unknown norm {kind!r}{nearest(kind, NORMS)}")
    return NORMS[kind](width)


def _result(norm: LayerNorm | RMSNorm, x: Tensor) -> torch.dtype | None:
    """The dtype of what a norm of x gives; None for that of x."""
    return precision.matmul_dtype(x) if norm.feeds_matmul_only else None


def summed(norm: nn.Module, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """x + y and its norm, in one pass where the norm can; of x alone where y is still to come."""
    if y is None:
        return x, norm(x)
    if isinstance(norm, LayerNorm | RMSNorm):
        return norm.after(x, y)
    s = x + y
    return s, norm(s)
