"""`zoobench verify`: whether records are what a run of this code left, and published ones are unchanged."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.commands.common import json_option, print_json
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.records.record import Record


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@json_option
def command(path: Path, as_json: bool) -> None:
    """Check that the records under PATH are sound.

    Each has its keys, and an id that is the hash of its own spec and data; runs of one task and seed with one learning
    schedule consumed the same batches; published records are unchanged.
    """
    files = [path] if path.is_file() else sorted(path.rglob("record.json"))
    if not files:
        raise UserError("no record.json under this path", file=path)
    found = [{"file": str(file), "problem": problem} for file, problem in (*_unsound(files), *_changed(path))]
    if as_json:
        print_json(found)
    else:
        for row in found:
            click.echo(f"{row['file']}: {row['problem']}")
        click.echo(f"{len(found)} problem(s)" if found else "every record is sound")
    sys.exit(1 if found else 0)


def _unsound(files: list[Path]) -> Iterator[tuple[Path, str]]:
    """Records that are wrong in themselves, then those that consumed other batches than their like."""
    from harness.records.record import Record

    streams: dict[tuple[object, ...], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        try:
            record = Record.from_dict(json.loads(file.read_text(encoding="utf-8")))
            problem = _problem(record, file)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"not a record: {error}"
        if problem:
            yield file, problem
        elif record.status == "ok" and not record.external:
            spec, steps = record.spec, record.budget.used.steps
            key = (spec.task_label, spec.seed, file.parent.parent, record.data.fingerprint, steps)
            streams[key][record.data.stream_hash].append(file)
    for (task, seed, *_), by_hash in streams.items():
        for rare in sorted(by_hash.values(), key=len)[:-1]:
            yield from ((file, f"consumed other batches than the other runs of {task}, seed {seed}") for file in rare)


def _problem(record: Record, file: Path) -> str:
    """What is wrong with a record by itself; empty where nothing is."""
    from harness.records.record import STATUSES

    if record.status not in STATUSES:
        return f"unknown status {record.status!r}"
    expected = record.spec.run_id
    if record.run_id != expected or file.parent.name != expected:
        return f"run id {record.run_id} is not the hash of its own spec and data ({expected})"
    if record.status == "ok" and not record.data.stream_hash and not record.external:
        return "no hash of the data it consumed"
    return ""


def _changed(path: Path) -> Iterator[tuple[Path, str]]:
    """Published records that are gone or were changed."""
    from harness.records.store import digest

    for file in sorted(path.rglob("published.json")) if path.is_dir() else []:
        for run_id, published in json.loads(file.read_text(encoding="utf-8")).items():
            record = file.parent / run_id / "record.json"
            if not record.is_file():
                yield record, "published, but not there"
            elif digest(record) != published:
                yield record, "not the record that was published"
