"""What public ops ask of their arguments: the shapes and dtypes that their signatures state, on one device.

A compiled loop believes what it is told, so nothing reaches one unchecked. Names of axes in the annotations of one op
(`Float[Tensor, "B T D"]`) stand for one size each: `#B` may also be 1, `*N` is any number of axes, `W-1` one less than
W, `_` anything. A batch (`B`, `*N`) may be empty; of all else there must be one.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from inspect import signature
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
DTYPES = {
    "Float": FLOATS,
    "Complex": COMPLEX,
    "Inexact": FLOATS + COMPLEX,
    "Int": (torch.int8, torch.int16, torch.int32, torch.int64),
    "Bool": (torch.bool,),
}
"""By the names of jaxtyping, whose own lists have dtypes that torch cannot compute in."""
DEVICE = ""
"""Of all tensors of a call, among the sizes of its axes."""
KEPT = 4096
"""Signatures of calls that an op remembers, all of which passed."""

Sizes = dict[str, Any]
"""What names of axes stand for in one call."""


def checked(op: Callable[P, R]) -> Callable[P, R]:
    """Have a function check its arguments as its annotations say.

    Raises:
        ValueError: which argument is not as expected, and what came.
    """
    check = checker(op)

    @wraps(op)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check(args, kwargs)
        return op(*args, **kwargs)

    return call


def checker(op: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], None]:
    """A function of arguments to `op`, which raises where they do not fit its annotations. See `checked`.

    What was accepted once is looked up, in a few microseconds.
    """
    passed: set[tuple[Any, ...]] = set()

    def check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen = (*_key(args), tuple(kwargs), *_key(kwargs.values())) if kwargs else _key(args)
        if seen not in passed:
            _check(op, args, kwargs)
            if len(passed) >= KEPT:
                passed.clear()
            passed.add(seen)

    return check


def _key(values: Iterable[Any]) -> tuple[Any, ...]:
    """All of some arguments that a check looks at."""
    key: list[Any] = []
    for x in values:
        if isinstance(x, Tensor):
            key += (x.shape, x.dtype, x.device, x.layout)
        elif isinstance(x, tuple):
            key.append((type(x), _key(x)))
        elif isinstance(x, dict):
            key.append((*x, _key(x.values())))
        else:
            key.append((type(x), x) if type(x) in (str, int) else type(x))
    return tuple(key)


def _check(op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    hints, sizes = _hints(op), Sizes()
    for name, x in _signature(op).bind(*args, **kwargs).arguments.items():  # TypeError where Python raises it too
        if not _fits(hints[name], x, sizes):
            known = ", ".join(f"{axis} = {sizes[axis]}" for axis in _axes_of(hints[name]) if axis in sizes)
            device = f" on {sizes[DEVICE]}" if DEVICE in sizes and _axes_of(hints[name]) else ""
            said = f"expected {_expected(hints[name])}{' with ' if known else ''}{known}{device}"
            raise ValueError(f"{_label(op)}: {name} is {_described(x)}, {said}")


_signature = cache(signature)


@cache
def _hints(op: Callable[..., Any]) -> Mapping[str, Any]:
    return get_type_hints(op)


def _label(op: Callable[..., Any]) -> str:
    """As one would import it: `cauchy.kernel`, or `wkv` alone where the folder has no other name."""
    folder, name = op.__module__.split(".")[2], op.__name__.removesuffix("_naive")
    return name if name == folder else f"{folder}.{name}"


def _fits(hint: Any, x: Any, sizes: Sizes) -> bool:
    """Whether x is what an annotation says; if so, the axes that it names are added to `sizes`."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(part, x, sizes) for part in parts)
    if origin is Literal:
        return x in parts
    if origin is tuple:
        return isinstance(x, tuple) and len(x) == len(parts) and all(map(_fits, parts, x, [sizes] * len(parts)))
    if is_typeddict(hint):
        fields = get_type_hints(hint).items()
        return isinstance(x, dict) and all(name in x and _fits(part, x[name], sizes) for name, part in fields)
    if hasattr(hint, "dim_str"):
        return _tensor_fits(hint, x, sizes)
    if hint is int or (hint is float and type(x) is int):
        return type(x) is int and -1 << 63 <= x < 1 << 63
    return isinstance(x, hint)


def _tensor_fits(hint: Any, x: Any, sizes: Sizes) -> bool:
    if not isinstance(x, Tensor) or x.layout is not torch.strided or x.dtype not in DTYPES[hint.dtype.__name__]:
        return False
    found, axes, shape = {DEVICE: x.device, **sizes}, hint.dim_str.split(), tuple(x.shape)
    for i in [i for i, axis in enumerate(axes) if axis[0] == "*"]:  # one at most
        joined = shape[i : i + 1 + max(-1, len(shape) - len(axes))]
        if found.setdefault(axes[i], joined) != joined:
            return False
        axes[i : i + 1] = ["_"] * len(joined)
    if found[DEVICE] != x.device or len(axes) != len(shape):
        return False
    if not all(_axis_fits(axis, size, found) for axis, size in zip(axes, shape, strict=True)):
        return False
    sizes |= found
    return True


def _axis_fits(axis: str, size: int, sizes: Sizes) -> bool:
    name, _, less = axis.removeprefix("#").partition("-")
    if name == "_" or (axis[0] == "#" and size == 1):
        return True
    whole = int(name) if name.isdigit() else sizes.setdefault(name, size + int(less or 0))
    return whole - int(less or 0) == size and (whole > 0 or name == "B")


def _axes_of(hint: Any) -> list[str]:
    """Names of axes in an annotation, in order."""
    if hasattr(hint, "dim_str"):
        return [axis.lstrip("#").partition("-")[0] for axis in hint.dim_str.split()]
    parts = get_type_hints(hint).values() if is_typeddict(hint) else get_args(hint)
    return list(dict.fromkeys(axis for part in parts for axis in _axes_of(part)))


def _expected(hint: Any) -> str:
    if hasattr(hint, "dim_str"):
        return f"{hint.dtype.__name__} ({', '.join(hint.dim_str.split())})"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_expected, get_args(hint)))
    if is_typeddict(hint):
        return f"{{{', '.join(f'{name}: {_expected(part)}' for name, part in get_type_hints(hint).items())}}}"
    if get_origin(hint) is tuple:
        return f"({', '.join(map(_expected, get_args(hint)))})"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return {NoneType: "None", int: "int of 64 bits"}.get(hint, hint.__name__)


def _described(x: Any) -> str:
    if isinstance(x, Tensor):
        layout = "" if x.layout is torch.strided else f" {str(x.layout).removeprefix('torch.')}"
        return f"{str(x.dtype).removeprefix('torch.')} ({', '.join(map(str, x.shape))}){layout} on {x.device}"
    if isinstance(x, dict):
        return f"{{{', '.join(f'{name}: {_described(part)}' for name, part in x.items())}}}"
    if isinstance(x, tuple):
        return f"({', '.join(map(_described, x))})"
    return repr(x)[:60]
