"""Refusals of options out of range, each a ValueError. The registry has checked types and choices before."""

import math
from fractions import Fraction

from zoo.contract import LayerContext


def at_least_one(owner: str, **options: float | None) -> None:
    """Refuse sizes below 1; None stands for a default."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{owner}: {name} must be at least 1, got {value}")


def positive(owner: str, **options: float | None) -> None:
    """Refuse numbers that are not above 0; None stands for a default."""
    for name, value in options.items():
        if value is not None and value <= 0:
            raise ValueError(f"{owner}: {name} must be positive, got {value}")


def check_step_sizes(owner: str, dt_min: float, dt_max: float) -> None:
    """Refuse a range in which no step size Δ could start."""
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"{owner}: need 0 < dt_min <= dt_max, got {dt_min} and {dt_max}")


def head_width(name: str, width: int, heads: int, given: int | None = None, option: str = "head_dim") -> int:
    """The width of a head of the mixer called `name`: `given` by its `option`, or width / heads."""
    if heads < 1 or (given is None and width % heads):
        raise ValueError(f"{name}: width {width} does not divide into {heads} heads")
    at_least_one(name, **{option: given})
    return width // heads if given is None else given


def head_sizes(name: str, width: int, heads: int, expand_k: float, expand_v: float) -> tuple[int, int]:
    """K and V of the mixer called `name`, whose keys and values are `expand_k` and `expand_v` times as wide as it."""
    sizes = []
    for what, option, expand in (("keys", "expand_k", expand_k), ("values", "expand_v", expand_v)):
        size = round(width * expand)
        if size < 1 or size % heads:
            raise ValueError(f"{name}: {what} {size} wide ({option} · width {width}) do not divide into {heads} heads")
        sizes.append(size // heads)
    return sizes[0], sizes[1]


def shared_heads(name: str, heads: int, kv_heads: int | None) -> int:
    """How many heads of keys and values the mixer called `name` has; None for as many as of queries."""
    shared = heads if kv_heads is None else kv_heads
    if shared < 1 or heads % shared:
        raise ValueError(f"{name}: {heads} heads cannot share {kv_heads} heads of keys and values (kv_heads) evenly")
    return shared


def head_near(channels: int, near: int = 64) -> int:
    """The divisor of `channels` whose ratio to `near` is closest to 1: heads of that width split them evenly."""
    divisors = [size for size in range(1, channels + 1) if channels % size == 0]
    return min(divisors, key=lambda size: abs(math.log(size / near)), default=near)


def width_multiple(heads: int, *expansions: float) -> int:
    """The smallest width D for which D and D times each expansion divide into `heads`."""
    shares = [heads / Fraction(expand).limit_denominator(1000) for expand in expansions if expand > 1e-3]
    return math.lcm(heads, *(share.numerator for share in shares))


def hidden_units(name: str, expand: float, context: LayerContext) -> int:
    """`expand` times the width, rounded."""
    hidden = round(expand * context.width)
    if hidden < 1:
        raise ValueError(f"{name}: expand {expand} leaves no hidden unit at width {context.width}")
    return hidden
