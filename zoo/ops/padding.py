"""Rows of unequal length: each batch row is a valid prefix, true in the mask, and padding behind it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def reverse(x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B T D"]:
    """Each row's valid prefix in reverse order; padding stays where it is."""
    if mask is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    lengths = mask.sum(1, keepdim=True)
    order = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x.gather(1, order[..., None].expand_as(x))


def align_right(
    x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None
) -> tuple[Float[Tensor, "B T D"], Int[Tensor, " B"]]:
    """Each row turned round until its last valid step is the last, and how many steps are valid.

    Padding then stands before the valid steps, where zeros leave no trace in the state of a linear system.
    """
    B, T, _ = x.shape
    if mask is None:
        return x, torch.full((B,), T, device=x.device)
    n = mask.sum(1)
    order = (torch.arange(T, device=x.device) + n[:, None]) % T
    return x.gather(1, order[..., None].expand_as(x)), n
