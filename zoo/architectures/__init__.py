"""The one list of architectures: register, look up, build.

A built-in architecture is a file of this folder and has the file's name; it is imported when it is asked for. Others
come from installed packages (entry points in group `zoobench.architectures`) or from files and modules that a suite
names under `plugins:`. What is registered is a `Mixer` class, or a function from options to a `Recipe`.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from zoo.layers import CHANNELS, MIXERS
from zoo.options import check
from zoo.registry import Option, Registry, Table, nearest, options_of, snake
from zoo.types import Part, Recipe

T = TypeVar("T", bound="Callable[..., Any]")
_registry = Registry("architecture", "zoobench.architectures", package="zoo.architectures")
names, get, file_of, registered_by = _registry.names, _registry.get, _registry.file_of, _registry.registered_by


def register(
    name: str | None = None,
    *,
    paper: str = "",
    source: str = "",
    deviations: tuple[str, ...] = (),
    family: str = "",
    options: type | None = None,
    **recipe: Any,
) -> Callable[[T], T]:
    """Register a `Mixer` class, or a function that returns a `Recipe`.

    Args:
        name: by default the file's name for a built-in architecture, else the function's, or the class's in snake case.
        paper: the paper that defines it. source: the official implementation. deviations: see `Entry`.
        family: the heading it is listed under; by default the name of its file.
        options: for a function that hands its `**options` to a mixer, the mixer's class; its options are then known.
        recipe: for a class, the fields of the Recipe around it (Pre-LN blocks with an MLP where they say nothing else).

    Raises:
        TypeError: no field of a Recipe has that name. ValueError: the name is taken by another module, or is not
            lower-case letters, digits and underscores.
    """

    def add(target: T) -> T:
        is_class = inspect.isclass(target)
        fields = [field.name for field in dataclasses.fields(Recipe)] if is_class else []
        for key in recipe:
            if key not in fields:
                raise TypeError(f"register: {key!r} is no field of the Recipe around a mixer{nearest(key, fields)}")
        own = () if is_class else options_of(target)
        mixer = target if is_class else options
        inherited = options_of(mixer, skip=1) if mixer else ()  # after the context
        stated = {option.name for option in own}
        _registry.add(
            name or _default_name(target),
            target,
            _around(target, recipe) if is_class else target,
            (*own, *(option for option in inherited if option.name not in stated)),
            paper=paper,
            source=source,
            deviations=deviations,
            family=family,
        )
        return target

    return add


def _around(mixer: Any, recipe: dict[str, Any]) -> Callable[..., Recipe]:
    return lambda **options: Recipe(Part(mixer, **options), **recipe)


def _default_name(target: Any) -> str:
    package, _, file = target.__module__.rpartition(".")
    return file if package == __name__ else snake(target.__name__)


def plugins() -> set[str]:
    """The names that are registered from elsewhere than this folder."""
    return _registry.entries.keys() - _registry.files.keys()


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
    made: Recipe = entry.make(**{key: value for key, value in options.items() if key in own}).replace(**changes)
    mixers = tuple(_resolved(mixer, MIXERS) for mixer in made.mixers)
    channels = tuple(channel and _resolved(channel, CHANNELS) for channel in made.channels)
    return made.replace(
        mixer=mixers if isinstance(made.mixer, tuple) else mixers[0],
        channel=channels if isinstance(made.channel, tuple) else channels[0],
    )


def _part(key: str, given: str | dict[str, Any]) -> Part:
    """`rope` or `{rope: {base: 500000}}`, the value of `key` in a suite, as a Part."""
    if isinstance(given, str):
        return Part(given)
    if len(given) != 1:
        raise ValueError(f"{key} is a name, or one name with its options, such as {{rope: {{fraction: 0.5}}}}")
    name, options = next(iter(given.items()))
    return Part(name, **(options or {}))


def _resolved(given: Part, layers: Table) -> Part:
    """The part by its class; an architecture's name stands for its own mixer or channel mixer."""
    if isinstance(given.kind, type):
        return given
    if given.kind in layers:
        return Part(layers.resolve(given.kind), **given.options)
    if given.kind not in names():
        raise ValueError(f"unknown {layers.what} {given.kind!r}{nearest(given.kind, [*layers, *names()])}")
    other = recipe(given.kind)
    own = other.mixer if layers is MIXERS else other.channel
    if not isinstance(own, Part):
        raise ValueError(f"{given.kind} has no single {layers.what} of its own")
    return Part(own.kind, **{**own.options, **given.options})
