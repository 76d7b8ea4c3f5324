"""Whether records are sound: each by itself, beside the others, and as they were published."""

import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from harness.errors import UserError
from harness.records.checks import Problem, problems
from harness.records.published import INDEX, Published
from harness.records.record import Record
from harness.records.store import Store, named_by, read_record
from harness.records.together import Odd, of_one_suite, together

Found = dict[str, str]
"""A file and what is wrong with it."""
Deeper: TypeAlias = "Callable[[Record, Path], Iterable[Problem]]"
"""What is wrong with a record, and with what lies in its folder, by something built anew."""
OfSuite: TypeAlias = "Callable[[Mapping[str, Any], Sequence[Record]], Iterable[Odd]]"
"""What is wrong with the records of a suite, by what it says of itself."""
T = TypeVar("T")


def shuffled(records: Iterable[T]) -> list[T]:
    """In an order that nobody foresees, as some checks are of the first so many alone."""
    found = list(records)
    random.SystemRandom().shuffle(found)
    return found


def verify(
    path: Path,
    deeper: Deeper = lambda record, folder: (),
    report: Callable[[str], None] = lambda text: None,
    of_suite: OfSuite = lambda described, records: (),
) -> tuple[list[Found], list[Record]]:
    """Everything wrong with the records under a folder, or with one; and the records.

    Checked: that published files have the hashes in their published.json; each record by `checks.problems`, and by
    `deeper`; all by `together`; and of each folder those that its suite names, by `of_one_suite` and
    `of_suite`.

    Args:
        report: called with how far it is.

    Raises:
        UserError: there is no record.
    """
    found, read = list[Found](), list[tuple[str, Record]]()
    for where, record in records_under(path):
        if isinstance(record, str):
            found.append({"file": where, "problem": record})
        else:
            read.append((where, record))
    if not read and not found:
        raise UserError("no record under this path", file=path)
    folders = defaultdict[Path, list[Record]](list)
    for where, record in read:
        folders[_folder(where).parent].append(record)
    for number, (where, record) in enumerate(shuffled(read), 1):
        report(f"{number} of {len(read)} records: {record.suite} · {record.spec.title()}")
        found += [{"file": where, "problem": why} for why in alone(record, Path(where), deeper)]
    found.sort(key=lambda one: one["file"])
    records, places = [record for _, record in read], {id(record): where for where, record in read}
    odd = list(together(records))
    for folder, own in folders.items():
        try:
            described = Store(folder.name, folder.parent).described()
        except UserError as error:
            found.append({"file": str(error.file or folder), "problem": error.message})
            continue
        known = named_by(described, own)
        single = [*{record.run_id: record for record in known}.values()]  # one may be published, too
        odd += of_one_suite(single, uneven="seeds" in described)
        odd += of_suite(described, known) if folder.is_relative_to(os.path.abspath(path)) else ()  # all of it is here
    return found + [{"file": places[id(record)], "problem": f"{what}: {why}"} for record, what, why in odd], records


def alone(record: Record, where: Path, deeper: Deeper) -> Iterator[str]:
    """Everything wrong with a record that lies at `where`, or in its folder; `deeper` is asked if nothing else is."""
    clean, folder = True, _folder(where)
    if folder.name != record.run_id:
        clean = False
        yield f"record: is of run {record.run_id}, and lies in a folder of another name"
    for what, why in problems(record):
        clean = False
        yield f"{what}: {why}"
    if clean:
        yield from (f"{what}: {why}" for what, why in deeper(record, folder))


def _folder(where: str | Path) -> Path:
    """The folder of a run, as an absolute path: a relative one may lack its name."""
    path = Path(os.path.abspath(where))
    return path.parent if path.name == "record.json" else path


def records_under(path: Path) -> Iterator[tuple[str, Record | str]]:
    """Every record under a path with where it is, or what keeps it from being read; of a run that is published, its."""
    if not path.exists() and path.name in (published := Published(path.parent)):
        published.check()
        yield str(path), published.record(path.name)
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
            yield str(error.file or index), error.message
