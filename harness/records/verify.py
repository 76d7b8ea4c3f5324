"""Whether records are sound."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.records.published import INDEX, Published
from harness.records.record import STATUSES, Record
from harness.records.store import read_record

Problem = dict[str, str]
"""A file and what is wrong with it."""


def verify(path: Path) -> list[Problem]:
    """Everything wrong with the records under a folder (or with one record), those in Parquet files included.

    Checked: that published files have the hashes in their published.json, that each record parses and has its keys,
    that its run id is the hash of its own spec and data, and that runs of one task and seed with one learning schedule
    consumed the same batches.

    Raises:
        UserError: there is no record.
    """
    problems: list[Problem] = []
    streams: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    known = 0
    for where, record in records_under(path):
        known += 1
        problem = record if isinstance(record, str) else unsound(record, Path(where))
        if problem:
            problems.append({"file": where, "problem": problem})
        elif not isinstance(record, str) and record.status == "ok" and not record.external:
            spec, used = record.spec, record.budget.used
            key = (record.suite, spec.task_label, spec.seed, record.data.fingerprint, used.steps)
            streams.setdefault(key, {}).setdefault(record.data.stream_hash, []).append(where)
    if not known:
        raise UserError("no record under this path", file=path)
    for (_, task, seed, *_), hashes in streams.items():
        problem = f"consumed other batches than the other runs of {task}, seed {seed}"
        rare = sorted(hashes.values(), key=len)[:-1]
        problems += [{"file": file, "problem": problem} for where in rare for file in where]
    return problems


def records_under(path: Path) -> Iterator[tuple[str, Record | str]]:
    """Every record under a path with where it is, or what keeps it from being read."""
    for file in [path] if path.is_file() else sorted(path.rglob("record.json")):
        try:
            yield str(file), read_record(file)
        except UserError as error:
            yield str(file), error.message
    for index in sorted(path.rglob(INDEX)):
        published = Published(index.parent)
        try:
            published.check()
            for run_id in published.ids():
                yield str(index.parent / run_id), published.record(run_id)
        except UserError as error:
            yield str(error.file), error.message


def unsound(record: Record, where: Path) -> str:
    """What is wrong with a record that lies at `where`, or in its folder; empty where nothing is."""
    if record.status not in STATUSES:
        return f"unknown status {record.status!r}"
    expected, folder = record.spec.run_id, where.parent if where.name == "record.json" else where
    if record.run_id != expected or folder.name != expected:
        return f"run id {record.run_id} is not the hash of its own spec and data ({expected})"
    if record.status == "ok" and not record.data.stream_hash and not record.external:
        return "no hash of the data it consumed"
    return ""


def stream_by_step(record: Record) -> dict[int, str]:
    """The hashes of the data that a run consumed, by the number of steps after which each was taken."""
    marks = {int(step): known for step, known in record.data.stream_marks.items()}
    return marks | ({record.budget.used.steps: record.data.stream_hash} if record.data.stream_hash else {})
