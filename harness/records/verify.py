"""Whether published records are sound."""

from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.records.record import STATUSES, Record
from harness.records.store import Store, digest, read_record

Problem = dict[str, str]
"""A file and what is wrong with it."""


def verify(path: Path) -> list[Problem]:
    """Everything wrong with the records under a folder (or with one record).

    Checked: that each parses and has its keys, that its run id is the hash of its own spec and data, that runs of one
    task and seed with one learning schedule consumed the same batches, and that published records are unchanged.

    Raises:
        UserError: there is no record.
    """
    problems: list[Problem] = []
    streams: dict[tuple[Any, ...], dict[str, list[Path]]] = {}
    files = [path] if path.is_file() else sorted(path.rglob("record.json"))
    if not files:
        raise UserError("no record.json under this path", file=path)
    for file in files:
        try:
            record = read_record(file)
            problem = _unsound(record, file)
        except UserError as error:
            problem = error.message
        if problem:
            problems.append({"file": str(file), "problem": problem})
        elif record.status == "ok" and not record.external:
            spec, used = record.spec, record.budget.used
            key = (file.parent.parent, spec.task_label, spec.seed, record.data.fingerprint, used.steps)
            streams.setdefault(key, {}).setdefault(record.data.stream_hash, []).append(file)
    for (_, task, seed, *_), hashes in streams.items():
        problem = f"consumed other batches than the other runs of {task}, seed {seed}"
        rare = sorted(hashes.values(), key=len)[:-1]
        problems += [{"file": str(file), "problem": problem} for where in rare for file in where]
    return problems + (_changed(path) if path.is_dir() else [])


def _unsound(record: Record, file: Path) -> str:
    if record.status not in STATUSES:
        return f"unknown status {record.status!r}"
    expected = record.spec.run_id
    if record.run_id != expected or file.parent.name != expected:
        return f"run id {record.run_id} is not the hash of its own spec and data ({expected})"
    if record.status == "ok" and not record.data.stream_hash and not record.external:
        return "no hash of the data it consumed"
    return ""


def _changed(path: Path) -> list[Problem]:
    """Published records that are gone or are not what was published."""
    problems = []
    for folder in sorted(file.parent for file in path.rglob("published.json")):
        for run_id, known in Store(folder.name, folder.parent).published().items():
            record = folder / run_id / "record.json"
            if not record.is_file():
                problems.append({"file": str(record), "problem": "published, but not there"})
            elif digest(record) != known:
                problems.append({"file": str(record), "problem": "not the record that was published"})
    return problems
