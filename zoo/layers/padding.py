"""Rows of unequal length: zeros at masked steps, and steps that each row takes from or puts in places of its own."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from zoo.contract import Mask


def zero_padding(x: Float[Tensor, B * N], mask: Mask | None, axis: int = 1, value: float = 0.0) -> Float[Tensor, B * N]:
    """x with `value` at the masked steps of its time axis, so that nothing there, NaN included, reaches a valid one."""
    if mask is None:
        return x
    before, behind = (None,) * (axis - 1), (None,) * (x.ndim - axis - 1)
    index = (slice(None), *before, slice(None), *behind)
    return x.masked_fill(~mask[index], value)


def take_steps(x: Float[Tensor, "B *H S E"], at: Int[Tensor, "B T"]) -> Float[Tensor, "B *H T E"]:
    """The steps `at` of each row."""
    return x.gather(-2, _index(x, at))


def put_steps(
    line: Float[Tensor, "B *H S E"], x: Float[Tensor, "B *H T E"], at: Int[Tensor, "#B T"]
) -> Float[Tensor, "B *H S E"]:
    """`line` with x in the steps `at` of each row."""
    return line.scatter(-2, _index(x, at), x.to(line.dtype))


def _index(x: Tensor, at: Tensor) -> Tensor:
    """`at` beside every feature of x."""
    for _ in range(x.ndim - 3):
        at = at[:, None]
    return at[..., None].expand(*x.shape[:-2], -1, x.shape[-1])
