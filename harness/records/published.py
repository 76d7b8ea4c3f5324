"""A published suite: `records.parquet`, `curves.parquet` and `published.json`, which has their hashes.

A row of records.parquet is a run: columns for queries, and in `record` the whole JSON of it but for its curve, so that
nothing is lost. A row of curves.parquet is a point of a run's curve.
"""

import hashlib
import json
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.records.files import finite, read_json, to_json, write_atomic
from harness.records.record import CurvePoint, Origin, Record

if TYPE_CHECKING:
    import pyarrow as pa

RECORDS, CURVES, INDEX = "records.parquet", "curves.parquet", "published.json"
FORMAT = 1


def _path(dotted: str, default: Any = None) -> Callable[[Record], Any]:
    """Read an attribute of an attribute; `default` where one of them is None."""

    def read(record: Record) -> Any:
        value: Any = record
        for name in dotted.split("."):
            value = default if value is None else getattr(value, name)
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
    "record": ("string", lambda record: json.dumps(finite(record.replace(curve=[], origin=Origin())))),
}
"""The columns of records.parquet: Arrow type, and how one is read from a record."""
POINT = {"tokens": "int64", "steps": "int64", "flops": "float64", "seconds": "float64", "loss": "float64"}
"""The columns of curves.parquet beside `run_id`, `scores` on valid (name, value) and `extra` (JSON of unknown keys)."""


def records_table(records: Iterable[Record]) -> "pa.Table":
    """The rows of records.parquet."""
    import pyarrow as pa

    rows, types = list(records), pa.schema([(name, pa.type_for_alias(kind)) for name, (kind, _) in COLUMNS.items()])
    columns = [[finite(read(record)) for record in rows] for _, read in COLUMNS.values()]
    return pa.table(columns, schema=types)


def curves_table(records: Iterable[Record]) -> "pa.Table":
    """The rows of curves.parquet, in the order of the records and of their steps."""
    import pyarrow as pa

    scores = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))  # any reader knows these
    types = [("run_id", pa.string()), *((name, pa.type_for_alias(kind)) for name, kind in POINT.items())]
    points = [(record.run_id, finite(point)) for record in records for point in record.curve]
    columns: list[list[Any]] = [[run_id for run_id, _ in points]]
    columns += [[point.pop(name) for _, point in points] for name in POINT]
    valid = [point.pop("valid", None) for _, point in points]
    columns += [[None if known is None else _entries(known) for known in valid]]
    columns += [[json.dumps(point) if point else None for _, point in points]]
    return pa.table(columns, schema=pa.schema([*types, ("scores", scores), ("extra", pa.string())]))


def _entries(scores: Mapping[str, float | None]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in scores.items()]


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

    def table(self, name: str, columns: list[str] | None = None) -> "pa.Table":
        """One of the two files, or some of its columns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_table(self.folder / name, columns=columns)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise UserError(f"cannot be read: {error}", file=self.folder / name) from None

    @cached_property
    def _rows(self) -> dict[str, tuple[str, str, str]]:
        """By run id: the JSON of the record, its origin and who contributed it."""
        if not self.index:
            return {}
        columns = self.table(RECORDS, ["run_id", "record", "origin", "contributor"]).to_pydict()
        return dict(zip(columns["run_id"], zip(*list(columns.values())[1:], strict=True), strict=True))

    @cached_property
    def _curves(self) -> tuple["pa.Table", dict[str, tuple[int, int]]]:
        """The points of all curves, and by run id where its own begin and how many they are."""
        table, where = self.table(CURVES), dict[str, tuple[int, int]]()
        for at, run_id in enumerate(table["run_id"].to_pylist()):
            first, count = where.get(run_id, (at, 0))
            where[run_id] = (first, count + 1)
        return table, where

    def ids(self) -> list[str]:
        """The run ids, sorted."""
        return sorted(self._rows)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._rows

    def record(self, run_id: str, *, curve: bool = True) -> Record:
        """A record as it was published."""
        text, kind, contributor = self._rows[run_id]
        try:
            record = Record.from_dict(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"record {run_id} cannot be read: {error}", file=self.folder / RECORDS) from None
        points = self._curve(run_id) if curve else []
        return record.replace(curve=points, origin=Origin(kind, contributor))  # type: ignore[arg-type]

    def _curve(self, run_id: str) -> list[CurvePoint]:
        table, where = self._curves
        points = table.slice(*where.get(run_id, (0, 0))).to_pylist()
        return [CurvePoint.from_dict(_point(point)) for point in points]


def _point(row: dict[str, Any]) -> dict[str, Any]:
    """A row of curves.parquet as the JSON of a point."""
    scores = row["scores"]
    valid = {} if scores is None else {"valid": {score["name"]: score["value"] for score in scores}}
    point = {name: row[name] for name in POINT} | valid | json.loads(row["extra"] or "{}")
    return point | {"flops": int(row["flops"])}


def write(folder: Path, records: Iterable[Record], index: Mapping[str, Any]) -> None:
    """Publish records: both Parquet files, and last published.json with their hashes beside what `index` says."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(records, key=operator.attrgetter("run_id"))
    for name, table in ((RECORDS, records_table(ordered)), (CURVES, curves_table(ordered))):
        temporary = folder / f"{name}.tmp"
        pq.write_table(table, temporary, compression="zstd", compression_level=19)
        temporary.replace(folder / name)
    files = {name: sha256(folder / name) for name in (RECORDS, CURVES)}
    write_atomic(folder / INDEX, to_json({"format": FORMAT, **index, "files": files}))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
