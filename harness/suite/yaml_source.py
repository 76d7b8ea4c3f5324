"""YAML with its places: plain data, and for every key the file and line it stands on."""

import re
import reprlib
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from harness.errors import UserError
from zoo import files

Path_: TypeAlias = "tuple[str | int, ...]"
MOST_BYTES, MOST_NODES, MOST_DEPTH = 1 << 17, 100_000, 50
"""The largest suite that is read; any that people write is smaller by far."""


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
        if len(path) > MOST_DEPTH:
            raise UserError(f"no key lies {len(path)} deep", file=origin)
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
        UserError: unreadable, too large, not UTF-8, not YAML, a duplicate key, or no mapping at the top.
    """
    try:
        text = files.read_text(file, MOST_BYTES)
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", file=file) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=file) from None
    node = _composed(text, str(file))
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1 if node is not None else 1
        raise UserError("a suite is a mapping of keys (suite:, architectures:, tasks:, ...)", file=file, line=line)
    source = Source(None)
    source.data = _convert(node, (), str(file), source)
    return source


def read_value(text: str, origin: str) -> Any:
    """The plain data of a piece of YAML that an option holds; a UserError that names the option if it is none."""
    node = _composed(text, origin)
    return None if node is None else _convert(node, (), origin, Source(None))


def _composed(text: str, origin: str) -> yaml.Node | None:
    """The nodes of a document, of bounded number and depth, also once its aliases are filled in."""
    if len(text) > MOST_BYTES:
        raise UserError(f"has more than {MOST_BYTES:,} characters", file=origin)
    try:
        node = yaml.compose(text, Loader=Loader)
        if node is not None:
            _measured(node, origin, {})
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"is not YAML: {error.problem}", file=origin, line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise UserError(f"is not YAML: {error}", file=origin) from None
    except RecursionError:
        raise UserError("is not YAML: nested too deeply", file=origin) from None
    return node


def _measured(node: yaml.Node, origin: str, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many nodes stand below a node, itself among them, and how deep; each is looked at once, however often named.

    Raises:
        UserError: they are too many or too deep, or it stands below itself.
    """
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise UserError("is not YAML: an alias contains itself", file=origin)
        return found
    known[id(node)] = None
    below = [*chain(*node.value)] if isinstance(node, yaml.MappingNode) else node.value
    sizes = [] if isinstance(node, yaml.ScalarNode) else [_measured(one, origin, known) for one in below]
    count, depth = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
    if count > MOST_NODES or depth > MOST_DEPTH:
        most = f"has more than {MOST_NODES:,} values" if count > MOST_NODES else f"is nested over {MOST_DEPTH} deep"
        raise UserError(f"{most} once aliases are filled in", file=origin, line=node.start_mark.line + 1)
    known[id(node)] = count, depth
    return count, depth


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
    return _scalar(node, file, dotted(path))


def _scalar(node: yaml.Node, file: str, key: str) -> str | float | bool | None:
    """A word or number, as JSON can hold it."""
    where: dict[str, Any] = {"file": file, "line": node.start_mark.line + 1, "key": key}
    try:
        value = Loader("").construct_object(node)
        node.value.encode()  # no halves of characters
    except (yaml.MarkedYAMLError, ValueError, KeyError, AttributeError) as error:  # unknown tag, no date, no boolean
        problem = getattr(error, "problem", f"{reprlib.repr(node.value)} is no {node.tag.rpartition(':')[2]}")
        raise UserError(f"is not YAML: {problem}", **where) from None
    if value is not None and not isinstance(value, (str, float, int)):
        raise UserError(f"{reprlib.repr(node.value)} is read as a {type(value).__name__}: put it in quotes", **where)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"{reprlib.repr(node.value)} has too many digits; write it like 1e20", **where)
    return value


def merge(base: Source, over: Source, *, whole: tuple[str, ...] = ()) -> Source:
    """`base` with the keys of `over` on top: mappings merge, unless their key is in `whole`; the rest is replaced."""

    replaced = set[Path_]()

    def join(a: Any, b: Any, path: Path_) -> Any:
        if isinstance(a, dict) and isinstance(b, dict) and not (path and path[-1] in whole):
            return {
                k: join(a.get(k), b[k], (*path, k)) if k in b else a[k] for k in [*a, *(k for k in b if k not in a)]
            }
        replaced.add(path)
        return b

    data = join(base.data, over.data, ())
    kept = {p: at for p, at in base.places.items() if not any(p[:n] in replaced for n in range(len(p) + 1))}
    return Source(data, kept | over.places)
