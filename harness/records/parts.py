"""Frozen dataclasses that read and write JSON: typed on the way in, the same keys and values on the way out."""

import dataclasses
import marshal
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar, Union

P = TypeVar("P", bound="Part")


OPTIONAL = {"optional": True}
"""Metadata of a field whose key is left out of the JSON where it has its default."""


@dataclass(frozen=True)
class Part:
    """A mapping of a record. Keys that this version does not know are kept in `extra` and written back."""

    shared: ClassVar[bool] = False
    """Whether many records have equal ones, which are then one object."""
    extra: dict[str, Any] = field(default_factory=dict, kw_only=True, repr=False)

    @classmethod
    def from_dict(cls: type[P], data: dict[str, Any]) -> P:
        """Read the JSON of a record.

        Raises:
            ValueError: a key is missing that has no default.
        """
        form = _form(cls)  # type: ignore[arg-type]
        if not form.required <= data.keys():
            lacking = [name for name in form.known if name in form.required and name not in data]
            raise ValueError(f"no {', '.join(lacking)} in {cls.__name__.lower()}")
        values = {**form.defaults, **data}
        for name, make in form.factories.items():
            if name not in data:
                values[name] = make()
        for name, read in form.readers.items():
            if name in data:
                values[name] = read(data[name])
        unknown = () if data.keys() <= form.known.keys() else [name for name in data if name not in form.known]
        values["extra"] = {name: values.pop(name) for name in unknown}
        made = object.__new__(cls)
        vars(made).update(values)  # as the constructor would, key by key
        return made

    def to_dict(self) -> dict[str, Any]:
        """The JSON of a record."""
        written = {
            f.name: plain(getattr(self, f.name))
            for f in _written(type(self))  # type: ignore[arg-type]
            if not (f.metadata and f.metadata.get("optional") and getattr(self, f.name) == f.default)
        }
        return written | self.extra

    def replace(self: P, **changes: Any) -> P:
        return dataclasses.replace(self, **changes)


@cache
def _written(cls: Any) -> list[Any]:
    """The fields that stand in the JSON."""
    return [f for f in dataclasses.fields(cls) if f.name != "extra"]


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return value


Reader: TypeAlias = Callable[[Any], Any]


class _Form(NamedTuple):
    """How a Part is read."""

    known: dict[str, None]
    """Its fields, in their order."""
    required: set[str]
    defaults: dict[str, Any]
    factories: dict[str, Callable[[], Any]]
    readers: dict[str, Reader]
    """Of the fields whose values do not stay as JSON has them."""


@cache
def _form(cls: Any) -> _Form:
    fields, hints, missing = (
        [f for f in dataclasses.fields(cls) if f.name != "extra"],
        typing.get_type_hints(cls),
        dataclasses.MISSING,
    )
    defaults = {f.name: f.default for f in fields if f.default is not missing}
    factories = {f.name: f.default_factory for f in fields if f.default_factory is not missing}
    known = {f.name: None for f in fields}
    readers = {name: read for name in known if (read := _reader(hints[name])) is not None}
    return _Form(known, {*known} - {*defaults, *factories}, defaults, factories, readers)


def _reader(kind: Any) -> Reader | None:
    """What makes a value of this type of JSON; None for what stays as it is."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        optional = _reader(next(k for k in inner if k is not types.NoneType))
        return optional and partial(_unless_none, optional)
    if hasattr(kind, "from_dict"):
        from_dict: Reader = kind.from_dict
        return (lambda value: _shared(from_dict, marshal.dumps(value, 2))) if kind.shared else from_dict
    if hasattr(kind, "__dataclass_fields__"):
        return lambda value: kind(**value)
    item = _reader(inner[-1]) if origin is dict else _reader(inner[0]) if origin in (list, tuple, Sequence) else None
    if item is not None:
        return partial(_every, item, origin)
    return tuple if origin is tuple else None


def _unless_none(read: Reader, value: Any) -> Any:
    return None if value is None else read(value)


def _every(read: Reader, kind: Any, value: Any) -> Any:
    """The items of a mapping or list, each read."""
    if kind is dict:
        return {key: read(item) for key, item in value.items()}
    if kind is Sequence and not isinstance(value, list):
        return value  # a curve that is read when one looks at it
    return tuple(map(read, value)) if kind is tuple else [*map(read, value)]


@lru_cache(maxsize=4096)
def _shared(from_dict: Reader, packed: bytes) -> Any:
    """A part, once for all records that have an equal one."""
    return from_dict(marshal.loads(packed))
