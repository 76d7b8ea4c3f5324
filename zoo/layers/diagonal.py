"""A recurrence with one complex decay per mode, the same at every step."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Complex
from torch import Tensor

from zoo.ops.diagonal_scan import scan


def diagonal_recurrence(
    a: Complex[Tensor, " P"],
    b: Complex[Tensor, "B T P"],
    x0: Complex[Tensor, "B P"] | None,
    mask: Bool[Tensor, "B T"] | None,
) -> Complex[Tensor, "B T P"]:
    """x_t = a x_{t−1} + b_t; at masked steps the state stands still (b must be zero there)."""
    A = a.expand(b.shape) if mask is None else torch.where(mask[..., None], a, torch.ones_like(a))
    return scan(A, b, x0)
