"""The one list of tasks: register, look up, build.

A task is a `Task` class; its options are the keyword parameters of `__init__`. The built-in ones live in `tasks`,
others come from installed packages (entry points in group `zoobench.tasks`) or from plug-in files, see
`zoo.registry.load_plugin`. Nothing here imports torch or loads data.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from tasks.base import Task
from zoo.lookup import nearest
from zoo.registry import Option

GROUP = "zoobench.tasks"
BUILT_IN = ("tasks.text", "tasks.mnist", "tasks.recall")
T = TypeVar("T", bound=type[Task])
_entries: dict[str, Entry] = {}


@dataclass(frozen=True, slots=True)
class Entry:
    """What the registry knows of one task."""

    name: str
    make: type[Task]
    options: tuple[Option, ...]
    about: str
    paper: str
    source: str
    deviations: tuple[str, ...]
    """Where we depart from the paper or from the official code, and which of the two we follow where they differ."""
    origin: str
    """The module or file that registered it."""


def register(
    name: str | None = None, *, about: str = "", paper: str = "", source: str = "", deviations: tuple[str, ...] = ()
) -> Callable[[T], T]:
    """Register a `Task` class, and set its `name`.

    Args:
        name: defaults to the class's own `name`, or else the class's in snake case.
        about: defaults to the first paragraph of the class's docstring.
        paper: the paper that defines it. source: the official implementation. deviations: see `Entry`.

    Raises:
        ValueError: the name is taken by another module, or is not lower-case letters, digits and underscores.
    """

    def add(target: T) -> T:
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", target.__name__).lower()
        own = name or target.__dict__.get("name", snake)
        if not re.fullmatch(r"[a-z][a-z0-9_]*", own):
            raise ValueError(f"task name {own!r}: use lower-case letters, digits and underscores")
        origin = inspect.getsourcefile(target) or target.__module__
        if own in _entries and _entries[own].origin != origin:
            raise ValueError(f"task {own!r} is already registered by {_entries[own].origin}")
        text = about or (inspect.getdoc(target) or "").split("\n\n")[0].replace("\n", " ")
        target.name = own
        _entries[own] = Entry(own, target, _options(target), text, paper, source, deviations, origin)
        return target

    return add


def _options(target: type[Task]) -> tuple[Option, ...]:
    parameters = list(inspect.signature(target.__init__, eval_str=True).parameters.values())[1:]
    return tuple(
        Option(p.name, None if p.default is p.empty else p.default, p.annotation)
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    )


@cache
def _load_installed() -> None:
    for module in BUILT_IN:
        importlib.import_module(module)
    for point in entry_points(group=GROUP):
        point.load()


def names() -> list[str]:
    """Every registered task, sorted."""
    _load_installed()
    return sorted(_entries)


def get(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        KeyError: unknown; the message names the nearest known one.
    """
    _load_installed()
    if name not in _entries:
        raise KeyError(f"unknown task {name!r}{nearest(name, _entries)}")
    return _entries[name]


def build(name: str, **options: Any) -> Task:
    """A task under `options`. The data is not loaded before the first example is asked for.

    Example:
        >>> build("text", corpus="wikipedia_xml", length=128).shape.vocab
        256

    Raises:
        KeyError: unknown task. TypeError: unknown option. ValueError: an option's value cannot be.
        DataError: a file named in an option is absent or too small.
    """
    entry = get(name)
    known = [option.name for option in entry.options]
    for unknown in sorted(set(options) - set(known)):
        raise TypeError(f"{name} has no option {unknown!r}{nearest(unknown, known)}")
    return entry.make(**options)
