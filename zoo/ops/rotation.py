"""Pairs of features turned and stretched: each (x_2i, x_2i+1), as a complex number, times one of its own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.kernel_log import logged
from zoo.ops.precision import at_least_fp32


@logged("rotation")
def rotate(
    x: Float[Tensor, "B T F"], real: Float[Tensor, "#B T F/2"], imaginary: Float[Tensor, "#B T F/2"]
) -> Float[Tensor, "B T F"]:
    """(a, b) → (a·real − b·imaginary, b·real + a·imaginary), in float32 at least; in x's dtype."""
    a, b = at_least_fp32(x).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * real - b * imaginary, b * real + a * imaginary], dim=-1).flatten(-2).to(x.dtype)
