"""YAML with its places: plain data, and for every key the file and line it stands on."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from harness.errors import UserError

Path_: TypeAlias = "tuple[str | int, ...]"


class Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number, as YAML 1.2 does; PyYAML takes it for text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


@dataclass
class Source:
    """A YAML document: its data, and where each path of keys stands as (file, line)."""

    data: Any
    places: dict[Path_, tuple[str, int]] = field(default_factory=dict)

    def error(self, message: str, path: Path_ = ()) -> UserError:
        """An error that points at the deepest known place along `path`."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        file, line = self.places.get(known, (None, None))
        return UserError(message, file=file, line=line, key=dotted(path))

    def put(self, path: Path_, value: Any, origin: str) -> None:
        """Set a value, making mappings on the way; a UserError where the path runs through something else."""
        here = self.data
        for depth, key in enumerate(path, 1):
            try:
                if depth == len(path):
                    here[key] = value
                else:
                    here = here.setdefault(key, {}) if isinstance(here, dict) else here[key]
            except (TypeError, IndexError, KeyError, AttributeError):
                raise UserError(f"{dotted(path[:depth])} does not exist", file=origin) from None
        for place in [p for p in self.places if p[: len(path)] == path]:
            del self.places[place]
        self.places[path] = (origin, 0)


def dotted(path: Path_) -> str:
    """`("tasks", 0, "text")` → `tasks.0.text`."""
    return ".".join(map(str, path))


def read(file: Path) -> Source:
    """Parse a YAML file.

    Raises:
        UserError: unreadable, not UTF-8, not YAML, a duplicate key, or no mapping at the top.
    """
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=Loader)
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", file=file) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=file) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"is not YAML: {error.problem}", file=file, line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise UserError(f"is not YAML: {error}", file=file) from None
    except RecursionError:
        raise UserError("is not YAML: nested too deeply", file=file) from None
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1 if node is not None else 1
        raise UserError("a suite is a mapping of keys (suite:, architectures:, tasks:, ...)", file=file, line=line)
    source = Source(None)
    try:
        source.data = _convert(node, (), str(file), source)
    except RecursionError:
        raise UserError("is not YAML: an alias contains itself", file=file) from None
    return source


def _convert(node: yaml.Node, path: Path_, file: str, source: Source) -> Any:
    source.places.setdefault(path, (file, node.start_mark.line + 1))
    if isinstance(node, yaml.MappingNode):
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise UserError("a key must be a single word", file=file, line=line, key=dotted(path))
            here = (*path, key)
            if key in data:
                first = source.places[here][1]
                raise UserError(f"duplicate key; it already stands on line {first}", file=file, line=line, key=key)
            source.places[here] = (file, line)
            data[key] = _convert(value_node, here, file, source)
        return data
    if isinstance(node, yaml.SequenceNode):
        return [_convert(item, (*path, i), file, source) for i, item in enumerate(node.value)]
    try:
        return Loader("").construct_object(node)
    except (yaml.MarkedYAMLError, ValueError) as error:  # an unknown tag; a date that is none
        problem = getattr(error, "problem", error)
        raise UserError(f"is not YAML: {problem}", file=file, line=node.start_mark.line + 1) from None


def merge(base: Source, over: Source, *, whole: tuple[str, ...] = ()) -> Source:
    """`base` with the keys of `over` on top: mappings merge, unless their key is in `whole`; the rest is replaced."""

    def join(a: Any, b: Any, path: Path_) -> Any:
        if isinstance(a, dict) and isinstance(b, dict) and not (path and path[-1] in whole):
            return {
                k: join(a.get(k), b[k], (*path, k)) if k in b else a[k] for k in [*a, *(k for k in b if k not in a)]
            }
        for place in [p for p in places if p[: len(path)] == path]:
            del places[place]
        return b

    places = dict(base.places)
    data = join(base.data, over.data, ())
    return Source(data, places | over.places)
