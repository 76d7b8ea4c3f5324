"""Frozen dataclasses that read and write JSON: typed on the way in, the same keys and values on the way out."""

import dataclasses
import marshal
import re
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar, Union

P = TypeVar("P")


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
            Mismatch: a key is missing that has no default, or holds what its type does not allow.
        """
        return read(cls, data)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of a record."""
        own = vars(self)
        optional = _optional(type(self))  # type: ignore[arg-type]
        written = {
            name: plain(own[name])
            for name in _form(type(self)).kinds  # type: ignore[arg-type]
            if not (name in optional and own[name] == optional[name])
        }
        return written | self.extra

    def replace(self: P, **changes: Any) -> P:
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


@cache
def _optional(cls: Any) -> dict[str, Any]:
    """The defaults of the fields whose keys are left out of the JSON where they have them."""
    return {f.name: f.default for f in dataclasses.fields(cls) if f.metadata.get("optional")}


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) is dict:
        return {key: plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return value


class Mismatch(ValueError):
    """JSON that is not what a record holds: the path of keys to it, and what was expected there."""

    def __init__(self, said: str, path: tuple[str, ...] = ()) -> None:
        self.said, self.path = said, path
        super().__init__(": ".join(filter(None, (".".join(path), said))))

    def below(self, key: str) -> "Mismatch":
        """The same, seen from the mapping or list above."""
        return Mismatch(self.said, (key, *self.path))


Reader: TypeAlias = Callable[[Any], Any]


class Within(NamedTuple):
    """The least and greatest number that a field may hold."""

    low: float
    high: float


AnyInt: TypeAlias = Annotated[int, Within(-(2**63), 2**63 - 1)]
BigInt: TypeAlias = Annotated[int, Within(0, 1e300)]
COUNTS, NUMBERS = Within(0, 2**63 - 1), Within(-1e300, 1e300)
"""What a whole number may be, as an `int` that is not annotated otherwise and as a `float`."""


def convert(kind: Any, value: Any) -> Any:
    """A value of JSON as a type: a Part, or a list or mapping of some.

    Raises:
        Mismatch: it is something else.
    """
    return reader_of(kind)(value)


class _Plan(NamedTuple):
    """How mappings of the same keys and types are read."""

    absent: dict[str, Any]
    """The defaults of the fields that have no key."""
    factories: list[tuple[str, Callable[[], Any]]]
    readers: list[tuple[str, Reader]]
    """Of the keys whose values do not stay as JSON has them."""
    bounds: list[tuple[str, float, float]]
    unknown: list[str]


class _Form(NamedTuple):
    """How a dataclass is read."""

    kinds: dict[str, Any]
    """The annotations of its fields, in their order."""
    defaults: dict[str, Any]
    factories: dict[str, Callable[[], Any]]
    open: bool
    """Whether it keeps keys that it does not know."""
    plans: dict[tuple[Any, ...], _Plan]
    """By keys and types of values: few in all, and looking one up costs less than looking at every value."""


@cache
def _form(cls: Any) -> _Form:
    fields, missing = [f for f in dataclasses.fields(cls) if f.name != "extra"], dataclasses.MISSING
    hints = typing.get_type_hints(cls, include_extras=True)
    defaults = {f.name: f.default for f in fields if f.default is not missing}
    factories = {f.name: f.default_factory for f in fields if f.default_factory is not missing}
    return _Form({f.name: hints[f.name] for f in fields}, defaults, factories, issubclass(cls, Part), {})


def fields_of(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, but `extra`."""
    return _form(cls).kinds


def read(cls: type[P], data: Any) -> P:
    """A dataclass of JSON, every value of the type that the field says.

    Raises:
        Mismatch: a key is missing that has no default, or holds something else; or there is one too many, and no
            `extra` to keep it in.
    """
    form = _form(cls)  # type: ignore[arg-type]
    if type(data) is not dict:
        raise Mismatch(_expected(dict, data))
    signature = (*data, *map(type, data.values()))
    plan = form.plans.get(signature) or _planned(cls, form, data, signature)
    values = {**plan.absent, **data}
    for name, make in plan.factories:
        values[name] = make()
    name = ""
    try:
        for name, reader in plan.readers:
            values[name] = reader(data[name])
    except Mismatch as error:
        raise error.below(name) from None
    for name, low, high in plan.bounds:
        if not low <= values[name] <= high:
            raise Mismatch(f"out of range: {_shown(values[name])}", (name,))
    if not form.open:
        return cls(**values)
    values["extra"] = {name: values.pop(name) for name in plan.unknown}
    made = object.__new__(cls)
    vars(made).update(values)  # as the constructor would, key by key
    return made


def _planned(cls: type, form: _Form, data: dict[str, Any], signature: tuple[Any, ...]) -> _Plan:
    """How data with these keys and types is read; a Mismatch where it cannot be."""
    lacking = [name for name in form.kinds if name not in {*data, *form.defaults, *form.factories}]
    if lacking:
        raise Mismatch(f"no {', '.join(lacking)} in {cls.__name__.lower()}")
    absent = {name: default for name, default in form.defaults.items() if name not in data}
    plan = _Plan(absent, [item for item in form.factories.items() if item[0] not in data], [], [], [])
    for name, value in data.items():
        if name not in form.kinds:
            plan.unknown.append(name)
            continue
        found = _way(form.kinds[name], type(value))
        if found is None:
            raise Mismatch(_expected(form.kinds[name], value), (name,))
        reader, bounds = found
        if reader:
            plan.readers.append((name, reader))
        if bounds:
            plan.bounds.append((name, *bounds))
    if plan.unknown and not form.open:
        raise Mismatch(f"unknown key {plan.unknown[0]!r}")
    if len(form.plans) > 1000:  # of damaged files
        form.plans.clear()
    form.plans[signature] = plan
    return plan


Way: TypeAlias = "tuple[Reader | None, Within | None]"
"""What makes a value of JSON, None where it stays as it is; and its bounds, if it is a number."""


def _way(kind: Any, given: type) -> "Way | None":
    """How a value of one type of JSON is read as another type; None where it cannot be."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        if isinstance(inner[1], Within):
            return (None, inner[1]) if given is inner[0] else None
        return (partial(_matching, inner[1]), None) if given is str else None
    if origin in (Union, types.UnionType):
        return next((way for one in inner if (way := _way(one, given))), None)
    if origin is Literal:
        return (partial(_chosen, kind), None) if given in map(type, inner) else None
    if origin is dict:
        value = inner[1] | None if inner[1] is float else inner[1]  # null is how JSON has a score that is no number
        return (None if value is Any else partial(_mapping, reader_of(value)), None) if given is dict else None
    if origin in (list, tuple, Sequence):
        every = origin is not tuple or inner[-1] is Ellipsis
        items = partial(_list, reader_of(inner[0])) if every else partial(_fixed, tuple(map(reader_of, inner)))
        reader: Reader = (lambda value: tuple(items(value))) if origin is tuple else items
        lazy = origin is Sequence and given not in (str, dict) and issubclass(given, Sequence)  # read when looked at
        return (reader, None) if given in (list, tuple) else (None, None) if lazy else None
    if kind in (int, float) and given is int:
        return None, COUNTS if kind is int else NUMBERS
    if dataclasses.is_dataclass(kind):
        return (_part(kind), None) if given is dict else None
    return (None, None) if kind is Any or given is kind else None


def _part(kind: Any) -> Reader:
    from_dict: Reader = getattr(kind, "from_dict", partial(read, kind))
    shared = getattr(kind, "shared", False)
    return (lambda value: _shared(from_dict, marshal.dumps(value, 2))) if shared else from_dict


@cache
def reader_of(kind: Any) -> Reader:
    """What reads one of many values of a type; see `convert`."""
    ways: dict[type, Way] = {}

    def one(value: Any) -> Any:
        way = ways.get(type(value)) or _way(kind, type(value))
        if way is None:
            raise Mismatch(_expected(kind, value))
        ways[type(value)] = way
        if way[1] and not way[1].low <= value <= way[1].high:
            raise Mismatch(f"out of range: {_shown(value)}")
        return way[0](value) if way[0] else value

    return one


def _mapping(reader: Reader, value: dict[str, Any]) -> dict[str, Any]:
    try:
        return {key: reader(item) for key, item in value.items()}
    except Mismatch:
        return {key: _at(key, reader, item) for key, item in value.items()}


def _list(reader: Reader, value: Sequence[Any]) -> list[Any]:
    try:
        return [*map(reader, value)]
    except Mismatch:
        return [_at(str(place), reader, item) for place, item in enumerate(value)]


def _fixed(readers: tuple[Reader, ...], value: Sequence[Any]) -> list[Any]:
    if len(value) != len(readers):
        raise Mismatch(f"expected a list of {len(readers)}, got {_shown(value)}")
    return [_at(str(place), *both) for place, both in enumerate(zip(readers, value, strict=True))]


def _at(key: str, reader: Reader, value: Any) -> Any:
    try:
        return reader(value)
    except Mismatch as error:
        raise error.below(key) from None


def _chosen(kind: Any, value: Any) -> Any:
    if value not in typing.get_args(kind):
        raise Mismatch(_expected(kind, value))
    return value


def _matching(pattern: "re.Pattern[str]", value: str) -> str:
    if not pattern.fullmatch(value):
        raise Mismatch(f"expected a name like {pattern.pattern}, got {_shown(value)}")
    return value


def _expected(kind: Any, value: Any) -> str:
    return f"expected {_words(kind)}, got {_shown(value)}"


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_WORDS |= {types.NoneType: "null", list: "a list", tuple: "a list", Sequence: "a list"}


def _words(kind: Any) -> str:
    """A type as a user knows it."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    return _WORDS.get(inner[0] if origin is Annotated else origin or kind, "a mapping")


def _shown(value: Any) -> str:
    """A value, cut where it is long."""
    huge = isinstance(value, int) and abs(value) >= 2**64
    shown = "a number of too many digits" if huge else reprlib.repr(value)
    return {"None": "null", "True": "true", "False": "false"}.get(shown, shown)


@lru_cache(maxsize=4096)
def _shared(from_dict: Reader, packed: bytes) -> Any:
    """A part, once for all records that have an equal one."""
    return from_dict(marshal.loads(packed))
