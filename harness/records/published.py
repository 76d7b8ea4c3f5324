"""A published suite: `records.parquet`, `curves.parquet` and `published.json`, which has their hashes.

A row of records.parquet is a run: columns for queries, and in `record` the whole JSON of it but for its curve, so that
nothing is lost. A row of curves.parquet is a point of a run's curve.
"""

import hashlib
import json
import operator
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from harness.errors import UserError
from harness.records.files import finite, read_json, to_json, write_atomic
from harness.records.record import CurvePoint, Origin, Record

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

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
READ = ("run_id", "record", "origin", "contributor")
"""The columns that a record is made of again."""
POINT = {"tokens": "int64", "steps": "int64", "flops": "float64", "seconds": "float64", "loss": "float64"}
"""The columns of curves.parquet beside `run_id`, `scores` (on valid, by name) and `extra` (JSON of unknown keys)."""


def records_table(records: Iterable[Record]) -> "pa.Table":
    """The rows of records.parquet."""
    import pyarrow as pa

    rows, types = list(records), pa.schema([(name, pa.type_for_alias(kind)) for name, (kind, _) in COLUMNS.items()])
    columns = [[finite(read(record)) for record in rows] for _, read in COLUMNS.values()]
    return pa.table(columns, schema=types)


def curves_table(records: Iterable[Record]) -> "pa.Table":
    """The rows of curves.parquet, in the order of the records and of their steps."""
    import pyarrow as pa

    scores = pa.map_(pa.string(), pa.float64())
    types = [("run_id", pa.string()), *((name, pa.type_for_alias(kind)) for name, kind in POINT.items())]
    points = [(record.run_id, finite(point)) for record in records for point in record.curve]
    columns: list[list[Any]] = [[run_id for run_id, _ in points]]
    columns += [[point.pop(name) for _, point in points] for name in POINT]
    valid = [point.pop("valid", None) for _, point in points]
    columns += [[None if known is None else list(known.items()) for known in valid]]
    columns += [[json.dumps(point) if point else None for _, point in points]]
    return pa.table(columns, schema=pa.schema([*types, ("scores", scores), ("extra", pa.string())]))


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
    def _places(self) -> dict[str, int]:
        """By run id, its row in records.parquet."""
        ids = self.table(RECORDS, ["run_id"])["run_id"].to_pylist() if self.index else []
        return {run_id: at for at, run_id in enumerate(ids)}

    @cached_property
    def points(self) -> "_Points":
        """The curves of all runs."""
        return _Points(self.table(CURVES))

    def ids(self) -> list[str]:
        """The run ids, sorted."""
        return sorted(self._places)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._places

    def record(self, run_id: str, *, curve: bool = True) -> Record:
        """A record as it was published."""
        row = self._json.slice(self._places[run_id], 1)
        found = next(self._read(row, curve=curve))
        return found.replace(curve=[*found.curve])

    @cached_property
    def _json(self) -> "pa.Table":
        return self.table(RECORDS, [*READ])

    def records(self, leaving_out: Container[str] = ()) -> Iterator[Record]:
        """Every record as it was published, but those with these run ids; a curve is read when one looks at it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.index:
            return
        try:
            with pq.ParquetFile(self.folder / RECORDS) as file:
                for batch in file.iter_batches(1000, columns=[*READ]):  # the JSON of all at once may be gigabytes
                    yield from self._read(pa.Table.from_batches([batch]), leaving_out)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot be read: {error}", file=self.folder / RECORDS) from None

    def _read(self, rows: "pa.Table", leaving_out: Container[str] = (), *, curve: bool = True) -> Iterator[Record]:
        for run_id, text, kind, contributor in zip(*(rows[name].to_pylist() for name in READ), strict=True):
            if run_id in leaving_out:
                continue
            try:
                data = from_json(text, cache_strings="keys")
                data |= {
                    "curve": Curve(self, run_id) if curve else [],
                    "origin": {"kind": kind, "contributor": contributor},
                }
                record = Record.from_dict(data)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise UserError(f"record {run_id} cannot be read: {error}", file=self.folder / RECORDS) from None
            yield record


class _Points:
    """The points of all curves in arrays: objects of millions would fill the memory."""

    def __init__(self, table: "pa.Table") -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc
        from numpy.typing import NDArray

        runs, scores = pc.run_end_encode(_whole(table["run_id"])), _whole(table["scores"])
        ends = runs.run_ends.to_pylist()
        self.places = dict(zip(runs.values.to_pylist(), pairwise([0, *ends]), strict=True))
        self.numbers = {name: _whole(table[name]).to_numpy(zero_copy_only=False) for name in POINT}  # nulls are NaN
        keys = scores.keys.cast(pa.dictionary(pa.int32(), pa.string()))
        self.names, self.scores = keys.dictionary.to_pylist(), scores.items.to_numpy(zero_copy_only=False)
        self.keys, self.offsets = keys.indices.to_numpy(), scores.offsets.to_numpy()
        self.unscored = scores.is_null().to_numpy(zero_copy_only=False)
        self.extra, self.by_metric = _whole(table["extra"]), dict[str, NDArray[np.float64]]()

    def scored(self, run_id: str, metric: str, meter: str) -> list[tuple[float, float]]:
        """(meter, score) of the points of one run that have this score."""
        first, last = self.places.get(run_id, (0, 0))
        if metric not in self.by_metric:
            self.by_metric[metric] = self._of(metric)
        scores = self.by_metric[metric][first:last]
        has = scores == scores
        return [*zip(self.numbers[meter][first:last][has].tolist(), scores[has].tolist(), strict=True)]

    def _of(self, metric: str) -> "NDArray[np.float64]":
        """This score at every point, NaN where it has none."""
        import numpy as np

        found = np.full(len(self.unscored), np.nan)
        own = np.isin(self.keys, [at for at, name in enumerate(self.names) if name == metric])
        found[np.repeat(np.arange(len(found)), np.diff(self.offsets))[own]] = self.scores[own]
        return found

    def read(self, run_id: str) -> Iterator[CurvePoint]:
        """The points of one run."""
        first, last = self.places.get(run_id, (0, 0))
        tokens, steps, flops, seconds, loss = (column[first:last].tolist() for column in self.numbers.values())
        offsets, unscored = self.offsets[first : last + 1].tolist(), self.unscored[first:last].tolist()
        keys = [self.names[key] for key in self.keys[offsets[0] : offsets[-1]].tolist()]
        values = [None if v != v else v for v in self.scores[offsets[0] : offsets[-1]].tolist()]
        extra = self.extra.slice(first, last - first)
        more = (
            [{}] * len(extra) if extra.null_count == len(extra) else [json.loads(x or "{}") for x in extra.to_pylist()]
        )
        for i, own in enumerate(more):
            begin, end = offsets[i] - offsets[0], offsets[i + 1] - offsets[0]
            valid = None if unscored[i] else dict(zip(keys[begin:end], values[begin:end], strict=True))
            lost = None if loss[i] != loss[i] else loss[i]
            yield CurvePoint(tokens[i], steps[i], int(flops[i]), seconds[i], lost, valid, extra=own)


def _whole(column: "pa.ChunkedArray") -> "pa.Array":
    """A column in one piece."""
    return column.combine_chunks()


class Curve(Sequence[CurvePoint]):
    """The curve of a published run, read anew whenever one looks at it."""

    def __init__(self, published: Published, run_id: str) -> None:
        self._published, self._run_id = published, run_id

    def __iter__(self) -> Iterator[CurvePoint]:
        return self._published.points.read(self._run_id)

    def __len__(self) -> int:
        first, last = self._published.points.places.get(self._run_id, (0, 0))
        return last - first

    def scored(self, metric: str, meter: str) -> list[tuple[float, float]]:
        """(meter, score) of the points that have this score on valid."""
        return self._published.points.scored(self._run_id, metric, meter)

    def __getitem__(self, at: Any) -> Any:
        return [*self][at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    def __repr__(self) -> str:
        return repr([*self])


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
