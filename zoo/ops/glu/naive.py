"""y = W₂ (act(W_g x) ⊙ W₁ x), with biases if any (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops.elementwise import swiglu
from zoo.ops.linear import linear

Affine: TypeAlias = tuple[Tensor, Tensor | None]
"""The weight and the bias of a linear layer."""


def glu(
    x: Float[Tensor, "B T D"], gate: Affine, up: Affine, down: Affine, activation: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B T D"]:
    """As the equation reads."""
    return linear(gated(linear(x, *gate), linear(x, *up), activation), *down)


def gated(
    gate: Float[Tensor, "B T F"], up: Float[Tensor, "B T F"], activation: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B T F"]:
    """act(gate) ⊙ up."""
    return swiglu(gate, up) if activation is F.silu else activation(gate) * up
