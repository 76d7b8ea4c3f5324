"""Gated linear units: y = W₂ (act(W_g x) ⊙ W₁ x), with biases if any (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops.kernel_log import logged

Affine: TypeAlias = tuple[Tensor, Tensor | None]
"""The weight and the bias of a linear layer."""
MULTIPLE = 16
"""MKL's float32 product writes rows of 8/3 · 256 numbers at two thirds of the speed of rows of whole vectors, so on a
CPU hidden units that are always zero are added, up to a multiple of this."""


@logged("glu")
def glu(
    x: Float[Tensor, "B T D"], gate: Affine, up: Affine, down: Affine, activation: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B T D"]:
    """As the equation reads."""
    more = -len(gate[0]) % MULTIPLE if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") else 0
    if more:
        gate, up = ((F.pad(w, (0, 0, 0, more)), None if b is None else F.pad(b, (0, more))) for w, b in (gate, up))
        down = F.pad(down[0], (0, more)), down[1]
    return F.linear(activation(F.linear(x, *gate)) * F.linear(x, *up), *down)
