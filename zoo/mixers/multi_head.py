"""What mixers with heads share: how wide a head is, and features cut into heads and put together again."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def head_width(name: str, width: int, heads: int) -> int:
    """width / heads, for the mixer called `name`.

    Raises:
        ValueError: no whole number.
    """
    if heads < 1 or width % heads:
        raise ValueError(f"{name}: width {width} does not divide into {heads} heads")
    return width // heads


def split_heads(x: Float[Tensor, "B T F"], heads: int) -> Float[Tensor, "B H T d"]:
    """The features of each step cut into heads."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T F"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)
