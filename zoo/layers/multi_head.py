"""Heads: how wide one is, features split into heads and merged again, widths that divide into heads."""

from __future__ import annotations

import math
from fractions import Fraction

from jaxtyping import Float
from torch import Tensor

from zoo.layers.ranges import at_least_one


def head_width(name: str, width: int, heads: int, given: int | None = None, option: str = "head_dim") -> int:
    """The width of a head of the mixer called `name`: `given` by its `option`, or width / heads.

    Raises:
        ValueError: no whole number of at least 1.
    """
    if heads < 1 or (given is None and width % heads):
        raise ValueError(f"{name}: width {width} does not divide into {heads} heads")
    at_least_one(name, **{option: given})
    return width // heads if given is None else given


def width_multiple(heads: int, *expansions: float) -> int:
    """The smallest width D for which D and D times each expansion divide into `heads`."""
    shares = [heads / Fraction(expand).limit_denominator(1000) for expand in expansions if expand > 1e-3]
    return math.lcm(heads, *(share.numerator for share in shares))


def split_heads(x: Float[Tensor, "B T F"], heads: int) -> Float[Tensor, "B H T d"]:
    """The features of each step, split into heads."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T F"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)
