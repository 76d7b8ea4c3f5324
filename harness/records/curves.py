"""The curves of published runs: their points stay in arrays, and become objects when one looks at a curve."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from harness.records.files import finite
from harness.records.parts import Mismatch
from harness.records.record import CurvePoint, Record

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


POINT = {"tokens": "int64", "steps": "int64", "flops": "float64", "seconds": "float64", "loss": "float64"}
"""The columns of curves.parquet beside `run_id`, `scores` on valid (name, value) and `extra` (JSON of unknown keys)."""


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


class Points:
    """The points of all curves in arrays: objects of millions would fill the memory.

    Raises:
        ValueError: they are none.
    """

    def __init__(self, table: "pa.Table") -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc
        from numpy.typing import NDArray

        runs, scores = pc.run_end_encode(_whole(table["run_id"])), _whole(table["scores"])
        ends = runs.run_ends.to_pylist()
        self.places = dict(zip(runs.values.to_pylist(), enumerate(pairwise([0, *ends])), strict=True))
        self.firsts = np.array([0, *ends[:-1]])
        self.numbers = {name: _whole(table[name]).to_numpy(zero_copy_only=False) for name in POINT}  # nulls are NaN
        keys = scores.values.field("name").cast(pa.dictionary(pa.int32(), pa.string()))
        values = scores.values.field("value")
        self.names, self.scores = keys.dictionary.to_pylist(), values.to_numpy(zero_copy_only=False)
        self.keys, self.offsets = keys.indices.to_numpy(), scores.offsets.to_numpy()
        self.unscored = scores.is_null().to_numpy(zero_copy_only=False)
        self.extra, self.seen = _whole(table["extra"]), dict[tuple[object, ...], list[float]]()
        meters = [column for name, column in self.numbers.items() if name != "loss"]
        extras = [from_json(text) for text in self.extra.unique().drop_null().to_pylist()]
        if keys.null_count or not all(((column >= 0) & (column <= 1e300)).all() for column in meters):
            raise Mismatch("holds numbers or names that no curve has")
        if not all(isinstance(extra, dict) for extra in extras):
            raise Mismatch("holds other text than JSON objects")
        self.by_metric = dict[str, NDArray[np.float64]]()

    def span(self, run_id: str) -> tuple[int, int]:
        """Where the points of one run begin and end."""
        return self.places[run_id][1] if run_id in self.places else (0, 0)

    def reached(self, run_id: str, metric: str, meter: str, target: float, *, higher_is_better: bool) -> float:
        """What the meter shows at the first point of a run with this score at the target or past it; ∞ without one."""
        import numpy as np

        if run_id not in self.places:
            return math.inf
        asked = metric, meter, target, higher_is_better
        if asked not in self.seen:  # for all runs at once
            if metric not in self.by_metric:
                self.by_metric[metric] = self._of(metric)
            scores = self.by_metric[metric]
            there = scores >= target if higher_is_better else scores <= target
            at = np.where(there & np.isfinite(scores), self.numbers[meter], np.inf)
            self.seen[asked] = np.fmin.reduceat(at, self.firsts).tolist()
        return self.seen[asked][self.places[run_id][0]]

    def _of(self, metric: str) -> "NDArray[np.float64]":
        """This score at every point, NaN where it has none."""
        import numpy as np

        found = np.full(len(self.unscored), np.nan)
        own = np.isin(self.keys, [at for at, name in enumerate(self.names) if name == metric])
        found[np.repeat(np.arange(len(found)), np.diff(self.offsets))[own]] = self.scores[own]
        return found

    def read(self, run_id: str) -> Iterator[CurvePoint]:
        """The points of one run."""
        first, last = self.span(run_id)
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

    def __init__(self, points: Callable[[], Points], run_id: str) -> None:
        self._points, self._run_id = points, run_id

    def __iter__(self) -> Iterator[CurvePoint]:
        return self._points().read(self._run_id)

    def __len__(self) -> int:
        first, last = self._points().span(self._run_id)
        return last - first

    def reached(self, metric: str, meter: str, target: float, *, higher_is_better: bool) -> float:
        """See `Points.reached`."""
        return self._points().reached(self._run_id, metric, meter, target, higher_is_better=higher_is_better)

    def __getitem__(self, at: Any) -> Any:
        return [*self][at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    def __repr__(self) -> str:
        return repr([*self])
