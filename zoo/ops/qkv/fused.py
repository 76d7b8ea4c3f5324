"""Queries, keys and values in a single pass forward and a single pass back, where loops can be compiled."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.qkv import naive
from zoo.ops.qkv.naive import Turn


def split(
    x: Float[Tensor, "B T F"], heads: int, kv_heads: int, q_turn: Turn | None = None, k_turn: Turn | None = None
) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "B G T d"], Float[Tensor, "B G T d"]]:
    """See `naive.split`.

    What does not turn stays where it is in float32, which torch's attention reads as it lies; the blocks that attend in
    bfloat16 want it head by head.
    """
    moves = x.dtype is torch.bfloat16 or q_turn is not None or k_turn is not None
    if not moves or not forms.worth_fusing(x):
        return naive.split(x, heads, kv_heads, q_turn, k_turn)
    from zoo.ops.cpu.qkv import CompiledSplit  # loads numba

    return CompiledSplit.apply(x, heads, kv_heads, q_turn, k_turn)
