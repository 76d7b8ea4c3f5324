"""Records as the columns of a table: `record.spec.seed`, `record.metrics.test`, `record.provenance`.

A record is cut into its parts, and these into their fields, each of which is a column of JSON; null where a record has
no such key. Parts that many records have in common stay whole. So a file holds equal values once, and a reader makes
objects of them once.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json

from harness.records.parts import Mismatch, Part, fields_of, reader_of
from harness.records.record import Record
from harness.records.spec import SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

EXTRA = "extra"
"""The last column of a part: the keys that this version does not know."""
ELSEWHERE = {"record.curve", "record.origin", "record.spec.fingerprint"}
"""What other columns or tables have."""
LATER = tuple(f"record.speed.{of}_{how}" for of in ("decode", "latency") for how in ("seconds", "relative"))
"""Of fields that are younger than the format."""
BROKEN = object()


class Cut(NamedTuple):
    """A part that is cut into columns."""

    kind: type
    path: str
    below: "dict[str, Cut | str]"
    """By key, a part that is cut itself, or the name of a column."""


def _cut(kind: type, path: str) -> Cut:
    below: dict[str, Cut | str] = {}
    for name, of in fields_of(kind).items():
        if (column := f"{path}.{name}") not in ELSEWHERE:
            whole = not (isinstance(of, type) and issubclass(of, Part)) or of.shared
            below[name] = column if whole else _cut(of, column)
    return Cut(kind, path, below)


RECORD = _cut(Record, "record")


def names(cut: Cut = RECORD) -> list[str]:
    """The columns of a record."""
    inner = [names(part) if isinstance(part, Cut) else [part] for part in cut.below.values()]
    return [*(name for part in inner for name in part), f"{cut.path}.{EXTRA}"]


def unknown_to(there: Sequence[str]) -> list[str]:
    """The columns that are not `there`, of fields that came later: a record without them has their defaults."""
    return [name for name in LATER if name not in there]


def row(data: Mapping[str, Any], cut: Cut = RECORD) -> dict[str, str]:
    """The JSON of a record by column."""
    found: dict[str, str] = {}
    for key, part in cut.below.items():
        if isinstance(part, Cut):
            found |= row(data[key], part)
        elif key in data:
            found[part] = json.dumps(data[key])
    rest = {key: value for key, value in data.items() if key not in cut.below and f"{cut.path}.{key}" not in ELSEWHERE}
    return found | ({f"{cut.path}.{EXTRA}": json.dumps(rest)} if rest else {})


def whole(texts: Mapping[str, str | None], cut: Cut = RECORD) -> dict[str, Any]:
    """The JSON of a record from that of its columns.

    Raises:
        ValueError: it is no JSON, or no mapping where one should be.
    """
    found: dict[str, Any] = {}
    for key, part in cut.below.items():
        if isinstance(part, Cut):
            found[key] = whole(texts, part)
        elif (text := texts.get(part)) is not None:
            found[key] = from_json(text)
    more = from_json(texts[f"{cut.path}.{EXTRA}"] or "{}")
    if not isinstance(more, dict):
        raise Mismatch("expected a mapping", (cut.path, EXTRA))
    return found | more


def records(table: "pa.Table") -> "Iterator[Record | None]":
    """The records in a table that has these columns, but for what is `ELSEWHERE`; None for one that cannot be read."""
    broken = set[int]()
    for at, record in enumerate(_parts(RECORD, table, broken)):
        if at in broken or record.schema != SCHEMA:
            yield None
            continue
        vars(record.spec)["fingerprint"] = record.data.fingerprint
        yield record


def _parts(cut: Cut, table: "pa.Table", broken: set[int]) -> list[Any]:
    """A part of every row; the places of those that cannot be read are added to `broken`."""
    kinds, columns = fields_of(cut.kind), {}
    for key, part in cut.below.items():
        if isinstance(part, Cut):
            columns[key] = _parts(part, table, broken)
        else:
            columns[key] = _column(table[part], reader_of(kinds[key]), _absent(cut.kind, key), broken)
    columns[EXTRA] = _column(table[f"{cut.path}.{EXTRA}"], reader_of(dict[str, Any]), {}, broken)
    made, keys = [], tuple(columns)
    for values in zip(*columns.values(), strict=True):
        one: Any = object.__new__(cut.kind)
        vars(one).update(zip(keys, values, strict=True))  # as the constructor would, key by key
        made.append(one)
    return made


def _absent(kind: type, key: str) -> Any:
    """What a field has where its key is absent."""
    field = next(f for f in dataclasses.fields(kind) if f.name == key)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return BROKEN if field.default is dataclasses.MISSING else field.default


def _column(column: "pa.ChunkedArray", read: Callable[[Any], Any], absent: Any, broken: set[int]) -> list[Any]:
    """The values of a column, equal ones made once."""
    encoded = column.dictionary_encode().combine_chunks()
    values = [_value(text, read) for text in encoded.dictionary.to_pylist()] + [absent]
    places = encoded.indices.fill_null(len(values) - 1).to_pylist()
    bad = {at for at, value in enumerate(values) if value is BROKEN}
    if bad:
        broken.update(at for at, place in enumerate(places) if place in bad)
    return [values[place] for place in places]


def _value(text: str, read: Callable[[Any], Any]) -> Any:
    try:
        return read(from_json(text, cache_strings="keys"))
    except ValueError:
        return BROKEN
