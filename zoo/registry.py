"""Names and what stands behind them: components inside the zoo, and the registries that users add to."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any


class Table(dict[str, str]):
    """Component names mapped to `module:Class`; `table.resolve(kind)` gives the class."""

    def __init__(self, what: str, items: dict[str, str]) -> None:
        super().__init__(items)
        self.what = what

    def resolve(self, kind: str | type) -> Any:
        """The class called `kind` (a class is its own answer).

        Raises:
            ValueError: unknown; the message names the nearest known one.
        """
        if isinstance(kind, type):
            return kind
        if kind not in self:
            raise ValueError(f"unknown {self.what} {kind!r}{nearest(kind, self)}")
        module, _, name = self[kind].partition(":")
        return getattr(importlib.import_module(module), name)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: `; did you mean 'x'?`, or what is known where nothing is near."""
    names = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(names))}" if names else ""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a registered thing, as its signature states it."""

    name: str
    default: Any
    annotation: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What a registry knows under one name."""

    name: str
    make: Any
    """From options to the thing itself: a Recipe, a Task."""
    options: tuple[Option, ...]
    about: str
    paper: str
    source: str
    deviations: tuple[str, ...]
    """Where we depart from the paper or from the official code, and which of the two we follow where they differ."""
    origin: str
    """The module or file that registered it."""


@dataclass
class Registry:
    """Names that built-in modules, installed packages (entry points) and plug-in files register things under."""

    what: str
    group: str
    """The entry-point group of installed packages."""
    built_in: tuple[str, ...]
    """Modules that register the built-in ones when they are imported, which happens on first use."""
    entries: dict[str, Entry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """Names that things had before, and the names they have now."""
    _loaded: bool = False

    def add(
        self, name: str, target: Any, make: Callable[..., Any], options: tuple[Option, ...], about: str, **told: Any
    ) -> None:
        """Register `target` under `name`; `told` is paper, source and deviations.

        Raises:
            ValueError: the name is taken by another module, or is not lower-case letters, digits and underscores.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"{self.what} name {name!r}: use lower-case letters, digits and underscores")
        origin = inspect.getsourcefile(target) or target.__module__
        if name in self.entries and self.entries[name].origin != origin:
            raise ValueError(f"{self.what} {name!r} is already registered by {self.entries[name].origin}")
        text = about or (inspect.getdoc(target) or "").split("\n\n")[0].replace("\n", " ")
        self.entries[name] = Entry(name, make, options, text, origin=origin, **told)

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._load()
        return sorted(self.entries)

    def get(self, name: str) -> Entry:
        """The entry called `name`.

        Raises:
            KeyError: unknown; the message names the nearest known one.
        """
        self._load()
        name = self.aliases.get(name, name)
        if name not in self.entries:
            raise KeyError(f"unknown {self.what} {name!r}{nearest(name, self.entries)}")
        return self.entries[name]

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for module in self.built_in:
            importlib.import_module(module)
        for point in entry_points(group=self.group):
            try:
                point.load()
            except Exception as error:  # somebody else's code: what else is installed must still work
                why = f"{type(error).__name__}: {error}"
                warnings.warn(f"{self.what} plug-in {point.value} is left out: {why}", stacklevel=2)


def snake(name: str) -> str:
    """`TokenMixer` → `token_mixer`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def options_of(function: Callable[..., Any], skip: int) -> tuple[Option, ...]:
    """The options in a signature, after its first `skip` parameters."""
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())[skip:]
    return tuple(
        Option(p.name, None if p.default is p.empty else p.default, p.annotation)
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    )
