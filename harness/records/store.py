"""The records of a suite: runs made here, each in a folder of its own, over what was published with the suite.

A run made here is `results/<suite>/<run_id>/record.json`, written last and whole: where it is, the run is finished.
"""

import json
import os
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.processes import no_collection
from harness.records import published
from harness.records.checks import sealed
from harness.records.files import finite, read_json, to_json, write_atomic
from harness.records.record import Record

SUITE = "suite.json"
"""What the suite was when it last ran here: the rules of its board, its text, and the ids of its runs."""


def default_root() -> Path:
    """`$ZOOBENCH_RESULTS`, or `results` under the working directory."""
    return Path(os.environ.get("ZOOBENCH_RESULTS", "results"))


def baseline_key(task: str, fingerprint: str, test: object) -> str:
    """Under what a task's baselines are kept: its label, its data, and how many test examples were scored."""
    return f"{task} {fingerprint} {test}"


def stores(root: Path | None = None) -> "list[Store]":
    """A store for each folder under a root, by name; those without records among them."""
    root = root or default_root()
    return [Store(folder.name, root) for folder in sorted(root.glob("*/"))]


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
    """The results of one suite under a root folder.

    Args:
        ignore_published: see only what was made here.
    """

    def __init__(self, suite: str, root: Path | None = None, *, ignore_published: bool = False) -> None:
        self.suite, self.folder = suite, (root or default_root()) / suite
        self.ignore_published = ignore_published

    @cached_property
    def published(self) -> published.Published:
        """What was published with the suite; nothing where that is ignored."""
        return published.Published(self.folder / "ignored" if self.ignore_published else self.folder)

    def run_folder(self, run_id: str) -> Path:
        return self.folder / run_id

    def made_here(self, run_id: str) -> bool:
        """Whether this run was finished here."""
        return (self.run_folder(run_id) / "record.json").is_file()

    def finished(self, run_id: str) -> bool:
        """Whether there is a record of this run: made here, or published."""
        return self.made_here(run_id) or run_id in self.published

    def write(self, record: Record) -> None:
        """Store a finished run: curve beside it, record last, checkpoint removed."""
        if record.digest or not self.made_here(record.run_id):  # an older one, with new answers, stays without
            record = sealed(record)
        folder = self.run_folder(record.run_id)
        curve = "".join(json.dumps(finite(point)) + "\n" for point in record.curve)
        write_atomic(folder / "curve.jsonl", curve)
        write_atomic(folder / "record.json", to_json(record))
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)

    def read(self, run_id: str) -> Record | None:
        """One record, the one made here before the published one; None while there is neither."""
        if self.made_here(run_id):
            return read_record(self.run_folder(run_id) / "record.json")
        return self.published.record(run_id) if run_id in self.published else None

    def exists(self) -> bool:
        """Whether a record was published or made here."""
        return (self.folder / published.INDEX).is_file() or any(self.folder.glob("*/record.json"))

    def ids(self) -> list[str]:
        """The run ids of every record, sorted."""
        return sorted(self.own_ids().union(self.published.ids()))

    def own_ids(self) -> set[str]:
        """The run ids of the records made here."""
        return {path.parent.name for path in self.folder.glob("*/record.json")}

    def records(self) -> list[Record]:
        """Every record of the suite, by run id."""
        with no_collection():
            own = {run_id: read_record(self.run_folder(run_id) / "record.json") for run_id in self.own_ids()}
            known = [*own.values(), *self.published.records(leaving_out=own)]
        return sorted(known, key=lambda record: record.run_id)

    def described(self) -> dict[str, Any]:
        """What the suite was when it last ran here or was published: see `SUITE`; empty where neither happened."""
        return read_json(self.folder / SUITE) or self.published.index.get("suite", {})

    def describe(self, suite: Mapping[str, Any]) -> None:
        """Keep what the suite is."""
        write_atomic(self.folder / SUITE, to_json(dict(suite)))

    def read_baselines(self) -> dict[str, Any]:
        """Baselines by `baseline_key`."""
        return self.published.index.get("baselines", {}) | read_json(self.folder / "baselines.json")

    def write_baselines(self, baselines: Mapping[str, Any]) -> None:
        write_atomic(self.folder / "baselines.json", to_json(dict(baselines)))

    def publish(self, records: list[Record], suite: Mapping[str, Any], **index: Any) -> None:
        """Write these records as the published ones, with what the suite is and its baselines.

        `index` holds what else stands in published.json.
        """
        what = {"suite": dict(suite), "baselines": self.read_baselines(), **index}
        published.write(self.folder, records, what)
        self.__dict__.pop("published", None)
