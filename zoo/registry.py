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
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.lookup import Option, Registry, options_of, snake
from zoo.options import check
from zoo.terms import Part, Recipe, Role, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo.contract import Model

T = TypeVar("T", bound="Callable[..., Any]")
_registry = Registry("architecture", "zoobench.architectures", ("zoo.architectures",))
names, get = _registry.names, _registry.get


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
        told: dict[str, Any] = {"about": "", "paper": paper, "source": source, "deviations": deviations}
        if inspect.isclass(target):

            def wrap(**options: Any) -> Recipe:
                return Recipe(mixer=Part(target, **options))

            own, options = name or snake(target.__name__), options_of(target.__init__, skip=2)  # behind self and site
            _registry.add(own, target, wrap, options, **told)
        else:
            _registry.add(name or target.__name__, target, target, options_of(target, skip=0), **told)
        return target

    return add


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


COMMON: dict[str, Any] = {
    "depth": int,
    "channel": Part | str | dict[str, dict[str, Any] | None] | None,
    "wiring": str,
    "norm": str,
    "positions": Part | str | dict[str, dict[str, Any] | None],
    "dropout": float,
    "tie": bool,
}
"""Options every architecture takes, and what they may be: they change its Recipe."""


def recipe(name: str, **options: Any) -> Recipe:
    """The Recipe of an architecture under `options`: its own ones and the `COMMON` ones.

    Raises:
        KeyError: unknown architecture. TypeError: unknown option. ValueError: an option's value cannot be.
    """
    entry = get(name)
    own = {option.name for option in entry.options}
    check(name, entry.options, options, also=(Option(key, ..., kind) for key, kind in COMMON.items()))
    changes = {key: value for key, value in options.items() if key not in own}
    if changes.get("channel") == "none":
        changes["channel"] = None
    for key in ("channel", "positions"):
        if isinstance(changes.get(key), (str, dict)):
            changes[key] = _part(key, changes[key])
    return entry.make(**{key: value for key, value in options.items() if key in own}).replace(**changes)


def _part(key: str, given: str | dict[str, Any]) -> Part:
    """`rope` or `{rope: {base: 500000}}` as a Part."""
    if isinstance(given, str):
        return Part(given)
    if len(given) != 1:
        raise ValueError(f"{key} is a name, or one name with its options, such as {{rope: {{fraction: 0.5}}}}")
    name, options = next(iter(given.items()))
    return Part(name, **(options or {}))


def build(name: str, role: Role = "lm", *, shape: Shape, **options: Any) -> Model:
    """Build a model, initialised from torch's global generator.

    Example:
        >>> model = build("pre_ln", "lm", shape=Shape(length=128, vocab=256, outputs=256, width=64), heads=2)

    Raises:
        KeyError: unknown architecture. TypeError: unknown option. ValueError: an option's value cannot be.
        Unsupported: this architecture cannot play this role.
    """
    from zoo.heads import assemble

    model = assemble(recipe(name, **options), role, shape)
    model.built = {"architecture": name, "options": options}
    return model
