"""The one list of architectures: register, look up, build.

An architecture is a function from its own options to a `Recipe`; its name is the function's name. The built-in
ones live in `zoo.architectures`, others come from installed packages (entry points in group
`zoobench.architectures`) or from files and modules a suite names under `plugins:`. Nothing here imports torch until a
model is built.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.lookup import nearest
from zoo.terms import Part, Recipe, Role, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo.contract import Model

GROUP = "zoobench.architectures"
T = TypeVar("T", bound="Callable[..., Any]")
_entries: dict[str, Entry] = {}


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an architecture, as its signature states it."""

    name: str
    default: Any
    annotation: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What the registry knows of one architecture."""

    name: str
    make: Callable[..., Recipe]
    options: tuple[Option, ...]
    about: str
    paper: str
    source: str
    deviations: tuple[str, ...]
    """Where we depart from the paper or from the official code, and which of the two we follow where they differ."""
    origin: str
    """The module or file that registered it."""


def register(
    name: str | None = None, *, paper: str = "", source: str = "", deviations: tuple[str, ...] = ()
) -> Callable[[T], T]:
    """Register a function returning a `Recipe`, or a `Mixer` class (which gets Pre-LN blocks with an MLP around it).

    Args:
        name: defaults to the function's name, or the class's in snake case.
        paper: the paper that defines it. source: the official implementation. deviations: see `Entry`.

    Raises:
        ValueError: the name is taken by another module, or is not lower-case letters, digits and underscores.
    """

    def add(target: T) -> T:
        own = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", target.__name__).lower()
        if not re.fullmatch(r"[a-z][a-z0-9_]*", own):
            raise ValueError(f"architecture name {own!r}: use lower-case letters, digits and underscores")
        origin = inspect.getsourcefile(target) or target.__module__
        if own in _entries and _entries[own].origin != origin:
            raise ValueError(f"architecture {own!r} is already registered by {_entries[own].origin}")
        about = (inspect.getdoc(target) or "").split("\n\n")[0].replace("\n", " ")
        is_class = inspect.isclass(target)

        def wrap(**options: Any) -> Recipe:
            return Recipe(mixer=Part(target, **options))  # type: ignore[arg-type]

        make = wrap if is_class else target
        _entries[own] = Entry(own, make, _options(target), about, paper, source, deviations, origin)
        return target

    return add


def _options(target: Callable[..., Any]) -> tuple[Option, ...]:
    """The keyword options in a signature; a Mixer's first argument is its Site and no option."""
    function = target.__init__ if inspect.isclass(target) else target
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    if inspect.isclass(target):
        parameters = parameters[2:]
    return tuple(
        Option(p.name, None if p.default is p.empty else p.default, p.annotation)
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    )


@cache
def _load_installed() -> None:
    importlib.import_module("zoo.architectures")
    for point in entry_points(group=GROUP):
        point.load()


def load_plugin(where: str | Path) -> None:
    """Import a plug-in: a path to a `.py` file, or the name of an importable module.

    Raises:
        FileNotFoundError: no such file. ImportError: the module cannot be imported.
    """
    path = Path(where)
    if path.suffix != ".py":
        importlib.import_module(str(where))
        return
    if not path.is_file():
        raise FileNotFoundError(f"plug-in {path} does not exist")
    name = f"zoobench_plugin_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and Path(known.__file__ or "").resolve() == path.resolve():
        return
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def names() -> list[str]:
    """Every registered architecture, sorted."""
    _load_installed()
    return sorted(_entries)


def get(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        KeyError: unknown; the message names the nearest known one.
    """
    _load_installed()
    if name not in _entries:
        raise KeyError(f"unknown architecture {name!r}{nearest(name, _entries)}")
    return _entries[name]


COMMON = ("depth", "channel", "wiring", "norm", "positions", "dropout", "tie")
"""Options every architecture takes: they change its Recipe."""


def recipe(name: str, **options: Any) -> Recipe:
    """The Recipe of an architecture under `options`: its own ones and the `COMMON` ones.

    Raises:
        KeyError: unknown architecture. TypeError: unknown option.
    """
    entry = get(name)
    own = {option.name for option in entry.options}
    unknown = sorted(set(options) - own - set(COMMON))
    if unknown:
        raise TypeError(f"{name} has no option {unknown[0]!r}{nearest(unknown[0], [*own, *COMMON])}")
    changes = {key: value for key, value in options.items() if key not in own}
    if isinstance(changes.get("channel"), str):
        changes["channel"] = Part(changes["channel"])
    return entry.make(**{key: value for key, value in options.items() if key in own}).replace(**changes)


def build(name: str, role: Role = "lm", *, shape: Shape, **options: Any) -> Model:
    """Build a model, initialised from torch's global generator.

    Example:
        >>> model = build("pre_ln", "lm", shape=Shape(length=128, vocab=256, outputs=256, width=64), heads=2)

    Raises:
        KeyError: unknown architecture. TypeError: unknown option. ValueError: an option's value cannot be.
        Unsupported: this architecture cannot play this role.
    """
    from zoo.heads import assemble

    return assemble(recipe(name, **options), role, shape)
