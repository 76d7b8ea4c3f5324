"""Torch's flash kernel for CPUs, with what the backward pass of `compiled.py` needs of it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms


def serves(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> bool:
    """Whether the kernel computes these as `naive.attend` says, and faster than blocks of products."""
    square = q.shape[-2] == k.shape[-2]  # else its queries count from the first key on
    there = hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")
    same = q.dtype is torch.bfloat16 and q.shape[-1] == v.shape[-1]
    return there and same and forms.has_tiles() and (square or not causal) and q.numel() > 0 and k.numel() > 0


def attend(
    q: Float[Tensor, "N R T K"], k: Float[Tensor, "N S K"], v: Float[Tensor, "N S K"], causal: bool, scale: float
) -> tuple[Float[Tensor, "N R T K"], Float[Tensor, "N R T"]]:
    """y and lse, of R query heads to a head of keys."""
    k, v = (x[:, None].expand(-1, q.shape[1], -1, -1) for x in (k, v))
    y, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    return y.contiguous(), lse.contiguous()
