"""Whether the code that trains, scores and times is the code that was installed."""

import functools
import importlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from harness.gates.measure import result
from harness.gates.registry import FIRST, gate
from harness.gates.subject import Subject
from harness.records.record import Gate

OWN = ("harness", "tasks", "zoo")
USED = (
    *("copy", "gc", "inspect", "math", "os", "random", "statistics", "time", "torch", "torch.autograd"),
    *("torch._tensor", "torch.nn.functional", "torch.nn.utils.clip_grad", "torch.optim.adamw", "torch.optim.optimizer"),
)
"""Modules of others that numbers go through."""
ROOTS = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib"))


@gate("functions of zoobench, torch or Python were replaced", when=FIRST)
def installed_code(subject: Subject) -> Gate:
    """How many functions that train, score, judge or time were written by somebody else."""
    found = replaced(subject.task, subject.watch)
    return result(len(found), 0, f"functions that were replaced{': ' if found else ''}{', '.join(found[:4])}")


def replaced(*objects: Any) -> list[str]:
    """Functions of our modules and classes, and of those they use, that were written somewhere else.

    Also methods that the given objects have for themselves alone. Somewhere else is any file that is neither installed
    nor part of zoobench.
    """
    roots = (*ROOTS, *(str(Path(sys.modules[name].__path__[0]).resolve()) for name in OWN))
    homes = [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] in OWN]
    homes += [importlib.import_module(name) for name in USED]
    found = [
        f"{name} in {home}" for home, name, value in _callables(homes) if not all(map(_is_under(roots), _layers(value)))
    ]
    for each in objects:
        found += [
            f"{name} of one {type(each).__name__}" for name in vars(each) if callable(getattr(type(each), name, None))
        ]
    return sorted({*found})


def _callables(homes: list[ModuleType]) -> Iterator[tuple[str, str, Any]]:
    """What modules, and classes that stand in them, define: home, name, value."""
    for home in homes:
        for name, value in tuple(vars(home).items()):
            yield home.__name__, name, value
            if isinstance(value, type) and value.__module__ == home.__name__:
                for own, inner in tuple(vars(value).items()):
                    yield f"{home.__name__}.{name}", own, inner


def _layers(value: Any) -> Iterator[FunctionType]:
    """The functions that a function, method, property or partial is made of, from the outside in."""
    while value is not None:
        if isinstance(value, FunctionType):
            yield value
            value = value.__dict__.get("__wrapped__")
        elif isinstance(value, functools._lru_cache_wrapper):
            value = value.__wrapped__
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, (functools.partial, functools.cached_property)):
            value = value.func
        else:
            return


def _is_under(roots: tuple[str, ...]) -> Any:
    def is_under(function: FunctionType) -> bool:
        where = function.__code__.co_filename
        generated = where.startswith("<") and function.__name__.startswith("__")  # by dataclasses
        return generated or where.startswith("<frozen ") or _resolved(where).startswith(roots)

    return is_under


@functools.cache
def _resolved(path: str) -> str:
    return str(Path(path).resolve())
