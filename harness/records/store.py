"""Records on disk: `results/<suite>/<run_id>/record.json`, written last and whole: where it is, the run is finished."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.records.parts import plain
from harness.records.record import Record


def default_root() -> Path:
    """`$ZOOBENCH_RESULTS`, or `results` under the working directory."""
    return Path(os.environ.get("ZOOBENCH_RESULTS", "results"))


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that it is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def to_json(data: Any) -> str:
    """Readable JSON; NaN and infinities become null, so that any reader can parse it."""
    return json.dumps(_finite(plain(data)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(data: Any) -> Any:
    """The data as JSON reads it again, with None for NaN and infinities."""
    return json.loads(json.dumps(data), parse_constant=lambda name: None)


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return Record.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"not a record: {error}", file=path) from None


class Store:
    """The results of one suite under a root folder."""

    def __init__(self, suite: str, root: Path | None = None) -> None:
        self.suite, self.folder = suite, (root or default_root()) / suite

    def run_folder(self, run_id: str) -> Path:
        return self.folder / run_id

    def _record(self, run_id: str) -> Path:
        return self.run_folder(run_id) / "record.json"

    def published(self) -> dict[str, str]:
        """Run ids that somebody published with the code, and the hash of each record as it was then."""
        return self._read("published.json")

    def finished(self, run_id: str, published: dict[str, str] | None = None) -> bool:
        """Whether this run was made here; a published record was made elsewhere and does not count."""
        path = self._record(run_id)
        known = (self.published() if published is None else published).get(run_id)
        return path.is_file() and (known is None or digest(path) != known)

    def write(self, record: Record) -> None:
        """Store a finished run: curve beside it, record last, checkpoint removed."""
        folder = self.run_folder(record.run_id)
        curve = "".join(json.dumps(_finite(point.to_dict())) + "\n" for point in record.curve)
        write_atomic(folder / "curve.jsonl", curve)
        write_atomic(folder / "record.json", to_json(record))
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)

    def read(self, run_id: str) -> Record | None:
        """One record, or None while it is not finished."""
        path = self._record(run_id)
        return read_record(path) if path.is_file() else None

    def records(self) -> list[Record]:
        """Every record of the suite, by run id."""
        return [read_record(path) for path in sorted(self.folder.glob("*/record.json"))]

    def read_baselines(self) -> dict[str, Any]:
        """Baselines by key (task label and data fingerprint)."""
        return self._read("baselines.json")

    def write_baselines(self, baselines: dict[str, Any]) -> None:
        write_atomic(self.folder / "baselines.json", to_json(baselines))

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @contextlib.contextmanager
    def replacing_published(self) -> Iterator[None]:
        """Whatever happens inside, records that were made anew are no longer listed as published afterwards."""
        try:
            yield
        finally:
            marks = self.published()
            kept = {run_id: known for run_id, known in marks.items() if not self.finished(run_id, marks)}
            if kept != marks:
                write_atomic(self.folder / "published.json", to_json(kept))

    def publish(self) -> int:
        """Mark every record of a run here as published: returns how many.

        What cannot be (`unsupported`) was not run by anybody, and need not be made anew elsewhere.
        """
        made = [record.run_id for record in self.records() if record.status != "unsupported"]
        marks = {run_id: digest(self._record(run_id)) for run_id in made}
        write_atomic(self.folder / "published.json", to_json(marks))
        return len(marks)


def digest(path: Path) -> str:
    """BLAKE2 of a file's bytes."""
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()
