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

from zoo.options import check
from zoo.registry import Option, Registry, options_of, snake
from zoo.types import Part, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T", bound="Callable[..., Any]")
_registry = Registry(
    "architecture",
    "zoobench.architectures",
    (
        "zoo.architectures.efficient_attention",
        "zoo.architectures.fast_weights",
        "zoo.architectures.hybrids",
        "zoo.architectures.linear_attention",
        "zoo.architectures.long_convolution",
        "zoo.architectures.mixers",
        "zoo.architectures.recurrent",
        "zoo.architectures.rwkv",
        "zoo.architectures.selective",
        "zoo.architectures.sparse_attention",
        "zoo.architectures.state_space",
        "zoo.architectures.transformers",
        "zoo.architectures.xlstm",
    ),
)
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

            own, options = name or snake(target.__name__), options_of(target.__init__, skip=2)  # after self and context
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
    "residual": str,
    "wiring": str,  # the name of `residual` before 0.1
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
    if "wiring" in changes:
        changes["residual"] = changes.pop("wiring")
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
