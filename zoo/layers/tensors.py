"""What most mixers do with tensors: heads, rows of unequal length, float32 where half precision would not do.

The ops see to precision on their own; `in_fp32` is for what layers compute themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.contract import Mask
from zoo.ops.precision import at_least_fp32, no_autocast

P = ParamSpec("P")
R = TypeVar("R")


def split_heads(x: Float[Tensor, "B T F"], heads: int) -> Float[Tensor, "B H T d"]:
    """The features of each step, split into heads."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T F"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


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


def reverse(x: Float[Tensor, "B T D"], mask: Mask | None) -> Float[Tensor, "B T D"]:
    """Each row's valid prefix in reverse order; padding stays where it is."""
    if mask is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    lengths = mask.sum(1, keepdim=True)
    order = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x.gather(1, order[..., None].expand_as(x))


def align_right(x: Float[Tensor, "B T D"], mask: Mask | None) -> tuple[Float[Tensor, "B T D"], Int[Tensor, " B"]]:
    """Each row turned round until its last valid step is the last, and how many steps are valid.

    Padding then stands before the valid steps, where zeros leave no trace in the state of a linear system.
    """
    B, T, _ = x.shape
    if mask is None:
        return x, torch.full((B,), T, device=x.device)
    n = mask.sum(1)
    order = (torch.arange(T, device=x.device) + n[:, None]) % T
    return x.gather(1, order[..., None].expand_as(x)), n


def _index(x: Tensor, at: Tensor) -> Tensor:
    """`at` beside every feature of x."""
    for _ in range(x.ndim - 3):
        at = at[:, None]
    return at[..., None].expand(*x.shape[:-2], -1, x.shape[-1])


def in_fp32(compute: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function of tensors, or a method of a module, to compute in float32 at least, autocast or not.

    Tensors among the arguments arrive in float32 at least, and a method finds its module's own parameters and buffers
    so. float64 stays.
    """

    @functools.wraps(compute)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        promoted: Any = _promoted  # of the types it is given
        with no_autocast(_device(args)):
            return compute(*map(promoted, args), **{name: promoted(x) for name, x in kwargs.items()})

    return run


def zeros_fp32(*shape: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Zeros in float32 at least: the start of a state that sums over steps."""
    return torch.zeros(shape, device=device, dtype=torch.promote_types(dtype, torch.float32))


class _InFp32:
    """A module, some of whose parameters are narrower than float32, as its methods under `in_fp32` see it."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return _promoted(value) if isinstance(value, Tensor) else value


def _promoted(x: Any) -> Any:
    if isinstance(x, nn.Module):
        narrow = any(at_least_fp32(p) is not p for p in x.parameters(recurse=False))
        return _InFp32(x) if narrow else x
    return at_least_fp32(x) if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex()) else x


def _device(args: tuple[Any, ...]) -> torch.device:
    tensors = [x for x in args if isinstance(x, Tensor)] or list(args[0].parameters())
    return tensors[0].device
