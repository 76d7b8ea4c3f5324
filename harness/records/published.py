"""A published suite: `records.parquet`, `curves.parquet` and `published.json`, which has their hashes.

A row of records.parquet is a run: columns for queries, and all of its record but the curve (`harness.records.columns`),
so that nothing is lost. A row of curves.parquet is a point of a run's curve.
"""

import hashlib
import operator
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.records import columns
from harness.records.curves import Curve, Points, curves_table
from harness.records.files import finite, naming, read_json, to_json, write_atomic
from harness.records.parts import Mismatch, Part, convert
from harness.records.record import ORIGINS, RUN_ID, Origin, Record, damaged_record
from zoo.files import open_regular, read_bytes, whole

if TYPE_CHECKING:
    import pyarrow as pa

RECORDS, CURVES, INDEX = "records.parquet", "curves.parquet", "published.json"
FORMAT = 2


def _path(dotted: str) -> Callable[[Record], Any]:
    """Read an attribute of an attribute; None where one of them is."""

    def read(record: Record) -> Any:
        value: Any = record
        for name in dotted.split("."):
            value = None if value is None else getattr(value, name)
        return value

    return read


COLUMNS: dict[str, tuple[str, Callable[[Record], Any]]] = {
    "suite": ("string", _path("suite")),
    "run_id": ("string", _path("run_id")),
    "status": ("string", _path("status")),
    "kind": ("string", _path("spec.kind")),
    "architecture": ("string", _path("spec.architecture_label")),
    "task": ("string", _path("spec.task_label")),
    "track": ("string", _path("spec.track")),
    "seed": ("int64", _path("spec.seed")),
    "lr": ("float64", _path("spec.train.lr")),
    "metric": ("string", _path("metrics.primary")),
    "higher_is_better": ("bool", _path("metrics.higher_is_better")),
    "valid": ("float64", lambda record: record.metrics.score("valid")),
    "test": ("float64", lambda record: record.metrics.score("test")),
    "passed_gates": ("bool", _path("eligibility.ranked")),
    "params": ("int64", _path("size.params")),
    "params_non_embedding": ("int64", _path("size.params_non_embedding")),
    "state_bytes": ("int64", _path("size.state_bytes")),
    "tokens": ("int64", _path("budget.used.tokens")),
    "steps": ("int64", _path("budget.used.steps")),
    "flops": ("float64", _path("budget.used.flops")),
    "seconds": ("float64", _path("budget.used.seconds")),
    "tokens_per_s": ("float64", _path("speed.train_tokens_per_s")),
    "relative_speed": ("float64", _path("speed.relative")),
    "peak_bytes": ("int64", _path("memory.peak_bytes")),
    "error": ("string", _path("error.message")),
    "fingerprint": ("string", _path("data.fingerprint")),
    "stream_hash": ("string", _path("data.stream_hash")),
    "zoobench": ("string", _path("provenance.zoobench")),
    "commit": ("string", _path("provenance.commit")),
    "hardware": ("string", _path("provenance.hardware")),
    "threads": ("int64", _path("provenance.threads")),
    "precision": ("string", _path("provenance.precision")),
    "origin": ("string", _path("origin.kind")),
    "contributor": ("string", _path("origin.contributor")),
}
"""The columns of records.parquet for queries: Arrow type, and how one is read from a record."""
READ = ("run_id", "origin", "contributor", *columns.names())
"""The columns that a record is made of again."""


@cache
def _origin(kind: Any, contributor: str) -> Origin:
    return Origin(kind, contributor)


def records_table(records: Iterable[Record]) -> "pa.Table":
    """The rows of records.parquet."""
    import pyarrow as pa

    rows, types = list(records), {name: pa.type_for_alias(kind) for name, (kind, _) in COLUMNS.items()}
    found = {name: [finite(read(record)) for record in rows] for name, (_, read) in COLUMNS.items()}
    parts = [columns.row(finite(record.replace(curve=[], origin=Origin()))) for record in rows]
    found |= {name: [part.get(name) for part in parts] for name in columns.names()}
    return pa.table(found, schema=pa.schema(types | dict.fromkeys(columns.names(), pa.string())))


@dataclass(frozen=True)
class Index(Part):
    """The keys of published.json."""

    format: int
    files: dict[str, str]
    suite: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, Any] = field(default_factory=dict)
    contributions: tuple[dict[str, Any], ...] = ()


class Published:
    """The published records of a suite's folder, read when they are asked for; none where there is no published.json.

    Raises:
        UserError: on reading, a file is missing, damaged, or not the one that was published.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of published.json; nothing where it is an older one, of records that lie in folders."""
        index = read_json(self.folder / INDEX)
        if "files" not in index:
            return {}
        if index.get("format") != FORMAT:
            raise UserError(f"format {index.get('format')!r}, this zoobench reads {FORMAT}", file=self.folder / INDEX)
        with naming(self.folder / INDEX):
            convert(Index, index)
        return index

    def check(self) -> None:
        """Compare both files with the hashes in published.json.

        Raises:
            UserError: one is missing or is another file.
        """
        for name in (RECORDS, CURVES):
            path = self.folder / name
            if not path.is_file():
                raise UserError("published, but not there", file=path)
            if sha256(path) != self.index.get("files", {}).get(name):
                raise UserError("not the file that was published", file=path)

    def table(self, name: str, wanted: list[str] | None = None, coded: list[str] | None = None) -> "pa.Table":
        """One of the two files, or some of its columns; those that are `coded` hold equal values once."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        made = {RECORDS: records_table, CURVES: curves_table}[name]([]).schema
        try:
            open_regular(self.folder / name).close()
            there = pq.read_schema(self.folder / name)
            absent = [] if name == CURVES else columns.unknown_to(there.names)
            if not there.equals(pa.schema([column for column in made if column.name not in absent])):
                raise UserError("has other columns than this zoobench writes", file=self.folder / name)
            # Arrow's own file: its threads may outlast the interpreter
            with pq.ParquetFile(self.folder / name, read_dictionary=_without(absent, coded)) as found:
                rows = found.read(_without(absent, wanted))
            for column in absent:
                rows = rows.append_column(column, pa.nulls(len(rows), made.field(column).type))
            rows.validate(full=True)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"cannot be read: {error}", file=self.folder / name) from None
        return rows.select(wanted or made.names)

    @cached_property
    def _places(self) -> dict[str, int]:
        """By run id, its row in records.parquet."""
        ids = self.table(RECORDS, ["run_id"])["run_id"].to_pylist() if self.index else []
        return {str(run_id): at for at, run_id in enumerate(ids)}

    @cached_property
    def statuses(self) -> dict[str, str]:
        """The status of each run."""
        both = self.table(RECORDS, ["run_id", "status"])
        return dict(zip(both["run_id"].to_pylist(), both["status"].to_pylist(), strict=True))

    @cached_property
    def points(self) -> Points:
        """The curves of all runs."""
        try:
            return Points(self.table(CURVES))
        except ValueError as error:
            raise UserError(f"not the curves of runs: {error}", file=self.folder / CURVES) from None

    def ids(self) -> list[str]:
        """The run ids, sorted."""
        return sorted(self._places)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._places

    def record(self, run_id: str) -> Record:
        """A record as it was published."""
        found = self._alone(self._rows.slice(self._places[run_id], 1))
        if isinstance(found, UserError):
            raise found
        if found.status == "damaged" and found.error:
            raise UserError(found.error.message)
        return found.replace(curve=[*found.curve])

    @cached_property
    def _rows(self) -> "pa.Table":
        return self.table(RECORDS, [*READ], coded=columns.names())

    def records(self, leaving_out: Container[str] = ()) -> "Iterator[Record | UserError]":
        """Every record as it was published, or why it cannot be read, but those with these run ids."""
        if not self.index:
            return
        ids, *origins = (self._rows[name].to_pylist() for name in ("run_id", "origin", "contributor"))
        made = columns.records(self._rows)
        for at, (run_id, record, kind, who) in enumerate(zip(ids, made, *origins, strict=True)):
            if run_id in leaving_out:
                continue
            if record is None or record.run_id != run_id or kind not in ORIGINS or who is None:
                yield self._alone(self._rows.slice(at, 1))
                continue
            vars(record).update(curve=Curve(lambda: self.points, run_id), origin=_origin(kind, who))
            yield record

    def _alone(self, row: "pa.Table") -> "Record | UserError":
        """The record in a row, or why it cannot be read."""
        texts = {name: row[name][0].as_py() for name in READ}
        run_id, data = texts["run_id"], None
        try:
            data = columns.whole(texts)
            origin = {"kind": texts["origin"], "contributor": texts["contributor"]}
            curve = Curve(lambda: self.points, run_id)
            record = Record.from_dict(data | {"curve": curve, "origin": origin})
            if record.run_id != run_id:
                raise Mismatch(f"of run {record.run_id}", ("run_id",))
        except ValueError as error:
            return self._damaged(run_id, data, error)
        return record

    def _damaged(self, run_id: Any, data: Any, error: ValueError) -> "Record | UserError":
        problem = UserError(f"record {run_id} cannot be read: {error}", file=self.folder / RECORDS)
        try:
            return damaged_record(data, run_id, problem) if RUN_ID.fullmatch(str(run_id)) else problem
        except Mismatch:
            return problem


def _without(absent: list[str], names: list[str] | None) -> list[str] | None:
    return names and [name for name in names if name not in absent]


def write(folder: Path, records: Iterable[Record], index: Mapping[str, Any]) -> None:
    """Publish records: both Parquet files, and last published.json with their hashes beside what `index` says."""
    ordered = sorted(records, key=operator.attrgetter("run_id"))
    for name, table in ((RECORDS, records_table(ordered)), (CURVES, curves_table(ordered))):
        with whole(folder / name) as part:
            _write_table(table, part)
    files = {name: sha256(folder / name) for name in (RECORDS, CURVES)}
    write_atomic(folder / INDEX, to_json({"format": FORMAT, **index, "files": files}))


def _write_table(table: "pa.Table", file: Path) -> None:
    """Numbers as streams of their first, second, … bytes: a sixth smaller than with dictionaries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    small = {"compression": "zstd", "compression_level": 19, "write_statistics": False}
    others = [name for name in table.column_names if name not in numbers]
    pq.write_table(table, file, use_dictionary=others, use_byte_stream_split=numbers, **small)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    return hashlib.sha256(read_bytes(path)).hexdigest()
