"""Queries, keys and values: features cut into heads, and turned by their positions (Su et al. 2021, arXiv:2104.09864).

Each pair of features becomes (a, b) → (a cos − b sin, b cos + a sin).
"""

from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.kernel_log import logged
from zoo.ops.precision import at_least_fp32

Convention: TypeAlias = Literal["half", "interleaved"]


class Turn(NamedTuple):
    """How the first features of a head turn at each step; the rest stays."""

    cos: Float[Tensor, "#B T p"]
    """Of each pair. Where a rotation also stretches, cos and sin are stretched."""
    sin: Float[Tensor, "#B T p"]
    convention: Convention
    """Which features form pair i of p: "half" i and i + p, "interleaved" 2i and 2i + 1."""


@logged("qkv")
def split(
    x: Float[Tensor, "B T F"], heads: int, kv_heads: int, q_turn: Turn | None = None, k_turn: Turn | None = None
) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "B G T d"], Float[Tensor, "B G T d"]]:
    """q, k and v of H, G and G heads from their features, in this order; q and k turned."""
    parts = x.unflatten(-1, (heads + 2 * kv_heads, -1)).transpose(1, 2)
    q, k, v = parts.split([heads, kv_heads, kv_heads], dim=1)
    return turn(q, q_turn), turn(k, k_turn), v


def turn(x: Float[Tensor, "B H T d"], by: Turn | None) -> Float[Tensor, "B H T d"]:
    """The first features of each head turned, computed in float32 at least; None turns none."""
    if by is None:
        return x
    cos, sin, n = by.cos[:, None], by.sin[:, None], 2 * by.cos.shape[-1]
    turning = at_least_fp32(x[..., :n])
    if by.convention == "half":
        a, b = turning.chunk(2, dim=-1)
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    else:
        a, b = turning[..., 0::2], turning[..., 1::2]
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    return torch.cat([turned.to(x.dtype), x[..., n:]], dim=-1) if n < x.shape[-1] else turned.to(x.dtype)


@logged("rotation")
def rotate(
    x: Float[Tensor, "B T F"], real: Float[Tensor, "#B T F/2"], imaginary: Float[Tensor, "#B T F/2"]
) -> Float[Tensor, "B T F"]:
    """(a, b) → (a·real − b·imaginary, b·real + a·imaginary), in float32 at least; in x's dtype."""
    a, b = at_least_fp32(x).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * real - b * imaginary, b * real + a * imaginary], dim=-1).flatten(-2).to(x.dtype)
