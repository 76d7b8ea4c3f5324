"""A bundle: the runs that somebody made of a suite, as one file that others review and merge.

It is a zip of three files, stored without compression, which Parquet has of its own: records.parquet, curves.parquet,
and published.json with their hashes, the suite, who made the runs, and where; and of a signature, if it is signed.
"""

import dataclasses
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.board.report import current_records
from harness.errors import UserError
from harness.records import curves, published, signature
from harness.records.checks import sealed
from harness.records.published import CURVES, INDEX, RECORDS, Published
from harness.records.record import Origin, Record
from harness.records.signature import SIGNATURE
from zoo import files

LARGEST = {INDEX: 1 << 24, RECORDS: 1 << 28, CURVES: 1 << 28, SIGNATURE: signature.LARGEST}
"""The files of a bundle, and how many bytes each may have."""
UNPACKED, ROWS = 1 << 30, 10_000_000
"""Bytes that a Parquet file may hold once it is decompressed, and rows."""
_ENVIRONMENT = ("zoobench", "commit", "system", "hardware", "device", "threads", "precision", "packages")


def submit(
    suite: str,
    by: str,
    file: Path | None = None,
    overrides: tuple[str, ...] = (),
    root: Path | None = None,
    sign: Path | None = None,
) -> tuple[Path, int]:
    """Make a bundle of the suite's runs that were made here; its file, and how many runs it holds.

    Args:
        by: who made them. file: `<suite>.zip` in the working directory by default. sign: an SSH key.

    Raises:
        UserError: none were made here.
    """
    store, described, records = current_records(suite, overrides, root)
    records = [record for record in records if store.made_here(record.run_id)]
    if not described["text"].get("lm_eval"):  # what a run was asked beside the suite is nobody else's affair
        records = [record if record.lm_eval is None else _unasked(record) for record in records]
    if not records:
        raise UserError(f"no runs made here; make some with: zoobench run {suite}", file=store.folder)
    file = file or Path(f"{store.suite}.zip")
    pack(file, records, {**described, "runs": sorted(record.run_id for record in records)}, by, sign)
    return file, len(records)


def _unasked(record: Record) -> Record:
    """A record without its answers."""
    record = record.replace(lm_eval=None)
    return sealed(record) if record.digest else record


def pack(file: Path, records: Iterable[Record], suite: Mapping[str, Any], by: str, sign: Path | None = None) -> None:
    """Write a bundle; equal content gives equal bytes. `sign` is an SSH key."""
    own = [record.replace(origin=Origin()) for record in records]
    index = {"suite": dict(suite), "contributor": by, "environment": environment(own)}
    with TemporaryDirectory() as name:
        published.write(Path(name), own, index)
        if sign is not None:
            signature.sign(Path(name, INDEX), sign)
        with files.whole(file) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as bundle:
            for member in (member for member in LARGEST if Path(name, member).is_file()):
                about = zipfile.ZipInfo(member)  # of 1980, whenever it is made
                about.create_system = 3
                bundle.writestr(about, (Path(name) / member).read_bytes())


def environment(records: Iterable[Record]) -> dict[str, list[Any]]:
    """Where and with what runs were made: every distinct value of their provenance."""
    known = [dataclasses.asdict(record.provenance) for record in records]
    distinct = {name: {json.dumps(one[name], sort_keys=True) for one in known if one[name]} for name in _ENVIRONMENT}
    return {name: [json.loads(text) for text in sorted(values)] for name, values in distinct.items()}


def unpack(file: Path, folder: Path) -> Published:
    """Write the files of a bundle into a folder, and check them against their hashes.

    Raises:
        UserError: it is damaged, holds anything else, or more than any honest one.
    """
    try:
        if file.stat().st_size > sum(LARGEST.values()):
            raise UserError("larger than a bundle may be", file=file)
        with zipfile.ZipFile(file) as bundle:
            _check_members(bundle.infolist(), file)
            for name in bundle.namelist():
                (folder / name).write_bytes(bundle.read(name))
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError) as error:
        raise UserError(f"no whole zip file: {error}", file=file) from None
    found = Published(folder)
    if not found.index:
        raise UserError("lists no files", file=folder / INDEX)
    found.check()
    for name, rows in ((RECORDS, published.records_table([])), (CURVES, curves.curves_table([]))):
        _check_parquet(folder / name, rows.schema)
    return found


def _check_members(members: list[zipfile.ZipInfo], file: Path) -> None:
    names = [member.filename for member in members]
    if sorted({*names, SIGNATURE}) != sorted(LARGEST) or len({*names}) < len(names):
        raise UserError(
            f"holds {', '.join(map(repr, names[:6]))}; a bundle holds {', '.join([*LARGEST][:3])}", file=file
        )
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise UserError(f"{member.filename} is compressed; a bundle's files are stored", file=file)
        if member.file_size > LARGEST[member.filename]:
            raise UserError(f"{member.filename} has more than {LARGEST[member.filename]:,} bytes", file=file)


def _check_parquet(path: Path, schema: Any) -> None:
    """Check the size and the columns of a Parquet file before it is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found, known = pq.read_metadata(path), pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"no Parquet file: {error}", file=path) from None
    size = sum(found.row_group(index).total_byte_size for index in range(found.num_row_groups))
    if size > UNPACKED or found.num_rows > ROWS:
        raise UserError(f"{found.num_rows:,} rows in {size:,} bytes, more than a bundle may hold", file=path)
    if not known.equals(schema):
        raise UserError("has other columns than this zoobench writes; they may be of another version", file=path)
