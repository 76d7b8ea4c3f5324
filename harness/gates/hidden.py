"""Everything a model can remember numbers in, declared or not: parameters, buffers, attributes, closures, modules."""

import gc
import sys
import types
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

Kind = Literal["parameter", "buffer", "attribute", "shared"]
OURS = ("zoo", "torch", "tasks", "harness", "numpy", "builtins")
DEEP = 12
KEPT = ("__builtins__", "__loader__", "__spec__")
FEW = 64
"""Bytes that are no place to hide in: names and counters."""


@dataclass(frozen=True)
class Part:
    """One tensor or array, or a container of numbers."""

    kind: Kind
    count: int
    sum: int
    trainable: bool = False


Inventory = dict[str, Part]


def inventory(model: nn.Module) -> Inventory:
    """Every tensor and array that can be reached from a model, by where it stands; each once.

    `shared` are those that a copy of the model would have too: in closures, classes and modules of plug-ins.
    """
    found: Inventory = {}
    seen: dict[int, Any] = {}  # holds what it has seen, so that no number is given twice
    parts = list(every(model))
    for name, module in parts:
        declared: tuple[tuple[Kind, Any], ...] = (("parameter", module._parameters), ("buffer", module._buffers))
        for what, tensors in declared:
            for own, tensor in tensors.items():
                if tensor is not None and id(tensor) not in seen:
                    seen[id(tensor)] = tensor
                    trainable = what == "parameter" and tensor.requires_grad
                    found[f"{name}.{own}"] = Part(what, tensor.numel(), _sum(tensor), trainable)
    for name, module in parts:
        for own, value in vars(module).items():
            if own not in ("_parameters", "_buffers", "_modules"):
                _walk(value, f"{name}.{own}", "attribute", found, seen, DEEP)
        for base in filter(_foreign, type(module).__mro__):
            _walk(_own(base), f"class {base.__name__}", "shared", found, seen, DEEP)
            _walk(sys.modules.get(base.__module__), f"module {base.__module__}", "shared", found, seen, DEEP)
    for home, name, value in _lent({base for _, module in parts for base in type(module).__mro__}):
        _walk(value, f"{home}.{name}", "shared", found, seen, 1)
    return found


def _lent(kinds: set[type]) -> Iterator[tuple[str, str, Any]]:
    """What holds numbers in modules and classes of others, where any code can put it."""
    for home in (*sys.modules.values(), *kinds):
        for name, value in tuple(getattr(home, "__dict__", {}).items()):
            if type(value) in HOLDERS or (type(value) in (list, deque, dict) and _first(value) in ITEMS):
                yield str(getattr(home, "__name__", "")), name, value


def _first(values: Any) -> type | None:
    """The type of the first thing in a container."""
    return next((type(value) for value in (values.values() if isinstance(values, dict) else values)), None)


HOLDERS = {Tensor, nn.Parameter, np.ndarray, bytes, bytearray, array}
ITEMS = {*HOLDERS, float, int}


def reachable(value: Any) -> Inventory:
    """Every tensor, array and container of numbers that can be reached from an object."""
    found: Inventory = {}
    _walk(value, "", "attribute", found, {}, DEEP)
    return found


def every(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """A module and all inside it; `named_modules` could be overridden."""
    yield name, module
    for own, inner in module._modules.items():
        if inner is not None:
            yield from every(inner, f"{name}.{own}" if name else own)


def saved(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, and buffers that are saved, by name."""
    parts = [(f"{name}." if name else "", part) for name, part in every(model)]
    return {
        f"{name}{own}": tensor
        for name, part in parts
        for own, tensor in (*part._parameters.items(), *part._buffers.items())
        if tensor is not None and own not in part._non_persistent_buffers_set
    }


def numbers(module: nn.Module) -> int:
    """How many numbers all parameters store, frozen ones too; a subclass of Tensor cannot hide any."""
    found = {id(p): p for _, part in every(module) for p in part._parameters.values() if p is not None}
    return sum(p.detach().as_subclass(Tensor).numel() for p in found.values())


def _own(home: Any) -> dict[str, Any]:
    """What a class or module defines, without what Python keeps there."""
    return {name: value for name, value in vars(home).items() if name not in KEPT}


def _walk(value: Any, path: str, kind: Kind, found: Inventory, seen: dict[int, Any], depth: int) -> None:
    """Add to `found` what holds numbers in a value or up to `depth` levels inside it, by the way that leads there."""
    if isinstance(value, PLAIN) or id(value) in seen or depth < 0:
        return
    seen[id(value)] = value
    if (part := _part(value, kind)) is not None:
        found[path] = part
    if isinstance(value, types.ModuleType):
        path, kind, depth = f"module {value.__name__}", "shared", depth + 1
    elif isinstance(value, FUNCTIONS):
        kind = "shared"
    for step, inner in _inside(value):
        _walk(inner, path + step, kind, found, seen, depth - 1)


PLAIN = (float, complex, bool, type(None), torch.dtype)
BUFFERS = (str, bytes, bytearray, memoryview, array, int)
ARRAYS = (Tensor, np.ndarray)
COLLECTIONS = (list, tuple, set, frozenset, dict)
FUNCTIONS = (types.FunctionType, types.MethodType)
CONTAINERS = {"builtins", "types", "collections", "functools", "itertools", "weakref", "queue", "thread", "torch"}
"""Packages, without underscores before their names, with classes whose instances hold others."""


def _part(value: Any, kind: Kind) -> Part | None:
    """The numbers that a value itself holds; None if it holds too few to matter."""
    if isinstance(value, BUFFERS) and (size := _bytes(value)) > FEW:
        return Part(kind, size // 4, hash(value if isinstance(value, (str, int)) else bytes(value)))
    if isinstance(value, ARRAYS):
        count = value.numel() if isinstance(value, Tensor) else value.size
        return Part(kind, int(count), _sum(value), isinstance(value, nn.Parameter) and value.requires_grad)
    if isinstance(value, COLLECTIONS):
        items = list(value.values() if isinstance(value, dict) else value)
        if len(numbers := tuple(item for item in items if isinstance(item, (int, float)))) > 16:
            return Part(kind, len(numbers), hash(numbers))
    return None


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value refers to, each by the step that leads there; nothing of what is ours, torch's or Python's."""
    if isinstance(value, (*BUFFERS, *ARRAYS)):
        return
    if isinstance(value, COLLECTIONS):
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
        yield from ((f"[{key}]", inner) for key, inner in items)
    elif isinstance(value, FUNCTIONS):
        function = value.__func__ if isinstance(value, types.MethodType) else value
        if function.__module__ is not None and function.__module__.split(".")[0] not in OURS:
            cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
            yield "", [*cells, *(function.__defaults__ or ()), vars(function)]
    elif isinstance(value, (nn.Module, torch.optim.Optimizer)):
        yield from ((f".{own}", inner) for own, inner in list(vars(value).items()))
    elif isinstance(value, types.ModuleType):
        if _home(value.__name__) and "site-packages" not in (getattr(value, "__file__", None) or "site-packages"):
            yield "", _own(value)
    elif not isinstance(value, type) and (_foreign(type(value)) or _holds(type(value))):
        yield from ((f".{own}", inner) for own, inner in list(getattr(value, "__dict__", {}).items()))
        refers = gc.get_referents(value)  # slots, deques, partials, iterators, generators
        yield from ((f"<{place}>", inner) for place, inner in enumerate(refers) if not isinstance(inner, type))


def _home(module: str) -> bool:
    """Whether a module, by its name, is a plug-in's: neither ours nor Python's."""
    home = module.split(".")[0]
    return home not in OURS and home not in sys.stdlib_module_names


def _holds(kind: type) -> bool:
    """Whether instances of a class hold others."""
    return kind.__module__.partition(".")[0].lstrip("_") in CONTAINERS


def _foreign(kind: type) -> bool:
    """Whether a class is a plug-in's."""
    return kind is not type and _home(kind.__module__)


def _bytes(value: Any) -> int:
    """How many bytes a string, a whole number or a buffer holds."""
    if isinstance(value, int):
        return value.bit_length() // 8
    return len(value) if isinstance(value, str) else memoryview(value).nbytes


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # an empty cell raises
    except ValueError:
        return False
    return True


def _sum(value: Tensor | np.ndarray) -> int:
    """A number that changes with any of the bits."""
    if isinstance(value, np.ndarray):
        return hash(value.tobytes()) if value.dtype != object else 0
    return 0 if value.device.type == "meta" else bits([value])


def bits(tensors: Iterable[Tensor]) -> int:
    """The sum over the bits of all tensors, eight bytes at a time read as a whole number; wraps around."""
    parts = []
    for tensor in tensors:
        flat = tensor.detach()
        flat = torch.view_as_real(flat) if flat.is_complex() else flat
        flat = flat.contiguous().reshape(-1)
        flat = (
            flat if flat.stride(0) == 1 else flat.clone(memory_format=torch.contiguous_format)
        )  # one number of a view
        flat = flat.view(torch.uint8)
        flat = flat.clone() if flat.storage_offset() % 8 else flat
        whole = flat.numel() // 8 * 8
        parts.append(flat[:whole].view(torch.int64).sum())
        if whole < flat.numel():
            parts.append(flat[whole:].sum(dtype=torch.int64))
    return int(torch.stack(parts).sum()) if parts else 0
