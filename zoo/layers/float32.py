"""Float32 where half precision would not do, for what layers compute themselves; the ops see to it on their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from zoo.ops.precision import at_least_fp32, no_autocast

P, R = ParamSpec("P"), TypeVar("R")


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
