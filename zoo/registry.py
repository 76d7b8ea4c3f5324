"""Names and what they stand for: components inside the zoo, the registries that users add to, and plug-ins."""

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any


class Table(dict[str, Any]):
    """Components of one kind by name; given as `module:Class`, one is imported when it is asked for."""

    def __init__(self, what: str, items: Mapping[str, Any]) -> None:
        super().__init__(items)
        self.what = what

    def resolve(self, kind: str | type) -> Any:
        """The component called `kind` (a class is its own answer).

        Raises:
            ValueError: unknown; the message names the nearest known one.
        """
        if isinstance(kind, type):
            return kind
        if kind not in self:
            raise ValueError(f"unknown {self.what} {kind!r}{nearest(kind, self)}")
        found = self[kind]
        if not isinstance(found, str):
            return found
        module, _, name = found.partition(":")
        return getattr(importlib.import_module(module), name)


MOST = 40
"""Names in a message, beyond which those that are known are counted."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: `; did you mean 'x'?`, or what is known where nothing is near."""
    names = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    shown, more = sorted(names)[:MOST], len(names) - MOST
    return f"; known: {', '.join(shown)}" + (f" and {more} more" if more > 0 else "") if names else ""


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
    origin: str
    """The module or file that registered it."""
    about: str
    family: str
    """The heading it is listed under."""
    paper: str = ""
    source: str = ""
    deviations: tuple[str, ...] = ()
    """Where we depart from the paper or from the official code, and which of the two we follow where they differ."""

    @property
    def year(self) -> int | None:
        """When its paper appeared: the first year that `paper` names."""
        found = re.search(r"\b(?:19|20)\d\d\b", self.paper)
        return int(found[0]) if found else None


@dataclass
class Registry:
    """Names that built-in modules, installed packages (entry points) and plug-in files register things under."""

    what: str
    group: str
    """The entry-point group of installed packages."""
    package: str = ""
    """A package with a file for each built-in thing, which has the file's name; imported when it is asked for."""
    modules: tuple[str, ...] = ()
    """Modules that register several built-in things each; all are imported on first use."""
    entries: dict[str, Entry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """Former names, and the names that replaced them."""
    _loaded: bool = False

    def add(
        self,
        name: str,
        target: Any,
        make: Callable[..., Any],
        options: tuple[Option, ...],
        *,
        about: str = "",
        family: str = "",
        **described: Any,
    ) -> None:
        """Register `target`, which `make` builds from `options`, under `name`. `described`: see `Entry`.

        `about` defaults to the first paragraph of its docstring, `family` to the name of its file.

        Raises:
            ValueError: the name is taken by another module, or is not lower-case letters, digits and underscores.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"{self.what} name {name!r}: use lower-case letters, digits and underscores")
        origin = inspect.getsourcefile(target) or target.__module__
        owner = self.entries[name].origin if name in self.entries else self.files.get(name, origin)
        if owner != origin:
            raise ValueError(f"{self.what} {name!r} is already registered by {owner}")
        about = about or (inspect.getdoc(target) or "").split("\n\n")[0].replace("\n", " ")
        family = family or Path(origin).stem
        self.entries[name] = Entry(name, make, options, origin, about, family, **described)

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._load()
        return sorted({*self.files, *self.entries})

    def get(self, name: str) -> Entry:
        """The entry called `name`.

        Raises:
            KeyError: unknown; the message names the nearest known one.
        """
        if name in self.files and name not in self.entries:
            importlib.import_module(f"{self.package}.{name}")
        elif name not in self.entries:
            self._load()
            name = self.aliases.get(name, name)
        if name not in self.entries:
            raise KeyError(f"unknown {self.what} {name!r}{nearest(name, self.names())}")
        return self.entries[name]

    def file_of(self, name: str) -> str:
        """The file that registers `name`; a built-in one is not imported for it.

        Raises:
            KeyError: unknown.
        """
        return self.files.get(name) or self.get(name).origin

    def registered_by(self, file: Path) -> set[str]:
        """The names that a file has registered so far."""
        return {name for name, entry in self.entries.items() if Path(entry.origin).resolve() == file.resolve()}

    @cached_property
    def files(self) -> dict[str, str]:
        """The built-in names of `package`, and the file of each."""
        if not self.package:
            return {}
        folders = importlib.import_module(self.package).__path__
        found = ((module.name, Path(folder)) for folder in folders for module in pkgutil.iter_modules([folder]))
        return {name: str(folder / f"{name}.py") for name, folder in found}

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for module in self.modules:
            importlib.import_module(module)
        for point in entry_points(group=self.group):
            try:
                point.load()
            except Exception as error:  # somebody else's code: what else is installed must still work
                why = f"{type(error).__name__}: {error}"
                warnings.warn(f"{self.what} plug-in {point.value} is left out: {why}", stacklevel=2)


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


def snake(name: str) -> str:
    """`TokenMixer` → `token_mixer`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def options_of(function: Callable[..., Any], skip: int = 0) -> tuple[Option, ...]:
    """The options in the signature of a function or class, after its first `skip` parameters."""
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())[skip:]
    return tuple(
        Option(p.name, None if p.default is p.empty else p.default, p.annotation)
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    )
