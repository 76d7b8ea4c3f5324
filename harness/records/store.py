"""The records of a suite: runs made here, each in a folder of its own, over what was published with the suite.

A run made here is `results/<suite>/<run_id>/record.json`, written last and whole: where it is, the run is finished.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.processes import no_collection
from harness.records import published
from harness.records.checks import sealed
from harness.records.files import finite, naming, read_json, to_json, write_atomic
from harness.records.mirror import folder_of
from harness.records.parts import Mismatch, Part, convert
from harness.records.record import RUN_ID, Record, damaged, damaged_record
from harness.records.seeds import SeedRule
from harness.records.spec import RunSpec
from zoo import files

SUITE = "suite.json"
"""What the suite was when it last ran here: the rules of its board, its text, and the ids of its runs."""


MODEL = "model"
"""The folder beside a record in which its model lies (`zoo.published.folder`)."""


def default_root() -> Path:
    """`$ZOOBENCH_RESULTS`, a folder or a URL, or `results` under the working directory."""
    return folder_of(os.environ.get("ZOOBENCH_RESULTS", "results"))


def baseline_key(task: str, fingerprint: str, test: object) -> str:
    """Under what a task's baselines are kept: its label, its data, and how many test examples were scored."""
    return f"{task} {fingerprint} {test}"


def named_by(suite: Mapping[str, Any], records: Iterable[Record]) -> list[Record]:
    """Those of these records that belong to a suite as `Store.described` has it: all, where it names none."""
    named = {*suite.get("runs", ())}
    return [record for record in records if not named or record.run_id in named]


def stores(root: Path | None = None) -> "list[Store]":
    """A store for each folder under a root, by name; those without records among them."""
    root = root or default_root()
    return [Store(folder.name, root) for folder in sorted(root.glob("*/"))]


def read_record(path: Path) -> Record:
    """The record in a file of a run's folder.

    Raises:
        UserError: it cannot be read, or is of another run than the folder's name says.
    """
    data = read_json(path, "a record")
    try:
        return _own(Record.from_dict(data), path)
    except Mismatch as error:
        raise UserError(f"not a record: {error}", file=path) from None


def _own(record: Record, path: Path) -> Record:
    name = os.path.basename(os.path.dirname(os.path.abspath(path)))
    if path.name == "record.json" and record.run_id != name:
        raise Mismatch(f"of run {record.run_id}, not of {name}", ("run_id",))
    return record


def read_or_damaged(path: Path) -> Record | UserError:
    """The record in a run's folder; one of status `damaged` where only what was run can be read, else the error."""
    try:
        return read_record(path)
    except UserError as error:
        with suppress(UserError, Mismatch, KeyError, TypeError, AttributeError):
            return damaged_record(read_json(path), path.parent.name, error)
        return error


@dataclass(frozen=True)
class Described(Part):
    """What a suite was: the keys of `SUITE` that boards read."""

    suite: str = ""
    about: str = ""
    order: tuple[tuple[str, str], ...] = ()
    reference: str = ""
    targets: dict[str, float] = field(default_factory=dict)
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: SeedRule | None = None
    text: dict[str, Any] = field(default_factory=dict)
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line(Part):
    """A baseline of a task: the keys of `baselines.json` that boards read."""

    task_label: str
    name: str
    value: float | None
    about: str | None = ""
    metric: str = ""


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

    def own_path(self, *below: str) -> Path:
        """A path below the suite's folder, to be written to.

        Raises:
            OSError: it leads out of the root, as through a symbolic link below it.
        """
        return files.inside(self.folder.parent, self.suite, *below)

    def made_here(self, run_id: str) -> bool:
        """Whether this run was finished here."""
        return (self.run_folder(run_id) / "record.json").is_file()

    def write(self, record: Record) -> None:
        """Store a finished run: curve beside it, record last, checkpoint removed."""
        if record.digest or not self.made_here(record.run_id):  # an older one, with new answers, stays without
            record = sealed(record)
        curve = "".join(json.dumps(finite(point)) + "\n" for point in record.curve)
        write_atomic(self.own_path(record.run_id, "curve.jsonl"), curve)
        path = self.own_path(record.run_id, "record.json")
        write_atomic(path, to_json(record))
        for folder in (path.parent, path.parent / MODEL):
            files.sweep(folder)
        shutil.rmtree(path.parent / "checkpoint", ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed processes left here beside a whole file, and the checkpoints of finished runs."""
        files.sweep(self.own_path(), older=3600)  # other processes may run the same suite
        for left in self.folder.glob("*/checkpoint"):
            with suppress(OSError):
                if self.made_here(left.parent.name):
                    shutil.rmtree(self.own_path(left.parent.name, left.name))

    def read(self, run: str | RunSpec) -> Record | None:
        """One record, the one made here before the published one; None while there is neither.

        Raises:
            UserError: it cannot be read. Of a `RunSpec` it then is a record of status `damaged`.
        """
        run_id = run if isinstance(run, str) else run.run_id
        try:
            if self.made_here(run_id):
                return read_record(self.run_folder(run_id) / "record.json")
            return self.published.record(run_id) if run_id in self.published else None
        except UserError as error:
            if isinstance(run, str):
                raise
            return damaged(run, run_id, self.suite, error)

    def exists(self) -> bool:
        """Whether a record was published or made here."""
        return (self.folder / published.INDEX).is_file() or any(self.folder.glob("*/record.json"))

    def own_files(self) -> list[Path]:
        """The records made here, read or not."""
        return [self.run_folder(run_id) / "record.json" for run_id in self.own_ids()]

    def ids(self) -> list[str]:
        """The run ids of every record, sorted."""
        return sorted(self.own_ids().union(self.published.ids()))

    def own_ids(self) -> set[str]:
        """The run ids of the records made here."""
        names: list[str] = []
        with suppress(OSError):
            names = os.listdir(self.folder)
        return {
            name for name in names if RUN_ID.fullmatch(name) and os.path.isfile(f"{self.folder}/{name}/record.json")
        }

    def statuses(self, run_ids: Iterable[str]) -> set[str]:
        """What statuses these runs' records say they have; nothing else in them is looked at."""
        own = self.own_ids()
        return {self._status(run_id) if run_id in own else self.published.statuses[run_id] for run_id in run_ids}

    def _status(self, run_id: str) -> str:
        with suppress(UserError):
            return str(read_json(self.run_folder(run_id) / "record.json").get("status"))
        return "damaged"

    def records(self) -> list[Record]:
        """Every record of the suite, by run id; of status `damaged` is what cannot be read of a known run."""
        return self.readable()[0]

    def readable(self) -> tuple[list[Record], list[str]]:
        """As `records`; and why others cannot be read, of which it is not even known what was run."""
        with no_collection():
            own = {path.parent.name: read_or_damaged(path) for path in self.own_files()}
            known = [*own.values(), *self.published.records(leaving_out=own)]
        records = [one for one in known if isinstance(one, Record)]
        return sorted(records, key=lambda one: one.run_id), [str(one) for one in known if isinstance(one, UserError)]

    def described(self) -> dict[str, Any]:
        """What the suite was when it last ran here or was published: see `SUITE`; empty where neither happened."""
        own = read_json(self.folder / SUITE)
        found: dict[str, Any] = own or self.published.index.get("suite", {})
        with naming(self.folder / (SUITE if own else published.INDEX)):
            convert(Described, found)
        return found

    def describe(self, suite: Mapping[str, Any]) -> None:
        """Keep what the suite is."""
        write_atomic(self.own_path(SUITE), to_json(dict(suite)))

    def read_baselines(self) -> dict[str, Any]:
        """Baselines by `baseline_key`."""
        found = self.published.index.get("baselines", {}) | read_json(self.folder / "baselines.json")
        with naming(self.folder / "baselines.json"):
            convert(dict[str, tuple[Line, ...]], found)
        return found

    def write_baselines(self, baselines: Mapping[str, Any]) -> None:
        write_atomic(self.own_path("baselines.json"), to_json(dict(baselines)))

    def publish(self, records: list[Record], suite: Mapping[str, Any], **index: Any) -> None:
        """Write these records as the published ones, with what the suite is and its baselines.

        `index` holds what else stands in published.json.
        """
        self.own_path()
        what = {"suite": dict(suite), "baselines": self.read_baselines(), **index}
        published.write(self.folder, records, what)
        self.__dict__.pop("published", None)
