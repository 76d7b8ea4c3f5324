"""Frozen dataclasses that read and write JSON: typed on the way in, the same keys and values on the way out."""

import dataclasses
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, Union

P = TypeVar("P", bound="Part")


OPTIONAL = {"optional": True}
"""Metadata of a field whose key is left out of the JSON where it has its default."""


@dataclass(frozen=True)
class Part:
    """A mapping of a record. Keys that this version does not know are kept in `extra` and written back."""

    extra: dict[str, Any] = field(default_factory=dict, kw_only=True, repr=False)

    @classmethod
    def from_dict(cls: type[P], data: dict[str, Any]) -> P:
        """Read the JSON of a record.

        Raises:
            ValueError: a key is missing that has no default.
        """
        readers = _readers(cls)  # type: ignore[arg-type]
        lacking = [f.name for f in dataclasses.fields(cls) if _required(f) and f.name not in data]
        if lacking:
            raise ValueError(f"no {', '.join(lacking)} in {cls.__name__.lower()}")
        given = {name: readers[name](value) for name, value in data.items() if name in readers}
        return cls(**given, extra={name: value for name, value in data.items() if name not in readers})

    def to_dict(self) -> dict[str, Any]:
        """The JSON of a record."""
        written = {
            f.name: plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name != "extra" and not (f.metadata.get("optional") and getattr(self, f.name) == f.default)
        }
        return written | self.extra

    def replace(self: P, **changes: Any) -> P:
        return dataclasses.replace(self, **changes)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


@cache
def _readers(cls: Any) -> dict[str, Callable[[Any], Any]]:
    """For each field of a Part, what makes its value of JSON."""
    hints = typing.get_type_hints(cls)
    return {f.name: _reader(hints[f.name]) for f in dataclasses.fields(cls) if f.name != "extra"}


def _reader(kind: Any) -> Callable[[Any], Any]:
    """What makes a value of this type of JSON; what is no mapping or list stays as it is."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        read = _reader(next(k for k in inner if k is not types.NoneType))
        return lambda value: None if value is None else read(value)
    if hasattr(kind, "from_dict"):
        from_dict: Callable[[Any], Any] = kind.from_dict
        return from_dict
    if hasattr(kind, "__dataclass_fields__"):
        return lambda value: kind(**value)
    if origin in (list, tuple):
        read = _reader(inner[0])
        return lambda value: origin(map(read, value))
    if origin is dict:
        read = _reader(inner[1])
        return lambda value: {key: read(item) for key, item in value.items()}
    return lambda value: value
