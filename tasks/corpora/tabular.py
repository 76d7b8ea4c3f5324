"""Tables of the user's: rows of text from CSV, TSV, JSON Lines and Parquet files, and from data sets of a hub."""

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.base import DataError
from tasks.corpora.download import offline
from zoo.files import read_bytes, user_path
from zoo.registry import nearest

JSON_LINES = (".jsonl", ".ndjson")
ON_HUB = (".csv", ".tsv", ".parquet", *JSON_LINES)
"""What is read of a hub's data set."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a task asks for."""

    name: str
    given: str | int | None = None
    """Its name in the table, where that differs; or its place, from 1, in a file without a header."""
    values: tuple[str, ...] = ()
    """All that its cells may hold; any text if empty."""


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a table, a cell for each column that was asked for."""

    rows: list[tuple[str, ...]]
    content: str
    """Identifies the rows: SHA-256 of the files, and the columns unless they are the first ones without a header."""


def read(
    task: str, *wanted: Column, path: str | None, hub: str | None = None, split: str = "train", quotes: bool = False
) -> Table | None:
    """The wanted columns of a user's table; None where neither `path` nor `hub` names one.

    A file is CSV if its name ends in `.csv`, JSON Lines (`.jsonl`, `.ndjson`), Parquet (`.parquet`), or else a column
    ends at each tab. Columns are found by name, also in other case; `a.b` is the field b of column a. In CSV and TSV
    the names are in the first line. Such a file has no header, and its columns are in the order in which they are
    wanted, if it has as many, no name was given, and the first line holds none of the names and not names alone (words
    of letters, digits, `_`, `.` and `-`); or if places were given. Rows without any text are left out.

    Args:
        task: its name, for messages. path: a file; relative paths start at the working directory.
        hub: `owner/name`, or `owner/name/folder`: a data set of the Hugging Face hub, of which the files (any of the
            above) are read that have `split` as a word in their path. Once downloaded, it is read without a network.
        quotes: whether quotes mean in TSV what they do in CSV.

    Raises:
        ValueError: both are given, or columns are and neither is.
        DataError: there is no such table, or it cannot be read, lacks a column or has a cell that cannot be.
    """
    if path is not None and hub is not None:
        raise ValueError(f"{task} takes `path` or `hub`, not both")
    if path is None and hub is None:
        for column in wanted:
            if column.given is not None:
                raise ValueError(f"{task}: `{column.name}` names a column of a table: give its `path` or `hub`")
        return None
    files = _of_hub(task, hub, split) if hub else [user_path(str(path))]
    try:
        stamps = tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        return _read(task, tuple(files), stamps, wanted, quotes)
    except OSError as error:
        raise DataError(f"{task}: {error.filename} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=2)
def _read(
    task: str, files: tuple[Path, ...], stamps: tuple[tuple[int, int], ...], wanted: tuple[Column, ...], quotes: bool
) -> Table:
    """The table as the files are; `stamps` make a change of them a new table."""
    rows: list[tuple[str, ...]] = []
    digests, named = [], any(column.given not in (None, place) for place, column in enumerate(wanted, 1))
    for file in files:
        where = f"{task}: {file.name}"
        content = read_bytes(file)
        digests.append(hashlib.sha256(content).hexdigest())
        if file.suffix.lower() in (".parquet", *JSON_LINES):
            cells, first, named = _typed(where, file.suffix.lower(), content, wanted), 1, True
        else:
            cells, first = _delimited(where, file.suffix.lower(), content, wanted, quotes)
            named = named or first == 2
        for number, row in enumerate(zip(*cells, strict=True), first):
            if any(cell not in (None, "") for cell in row):
                rows.append(tuple(_cell(f"{where}, row {number}", *both) for both in zip(wanted, row, strict=True)))
    if not rows:
        raise DataError(f"{task}: {', '.join(file.name for file in files)} holds no rows")
    whole = digests[0] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    names = ",".join(str(column.given or column.name) for column in wanted)
    return Table(rows, f"{whole}:{names}" if named else whole)


def _cell(where: str, column: Column, value: Any) -> str:
    where = f"{where}, column {column.given or column.name}"
    text = str(int(value)) if isinstance(value, int) else value
    if text is None or text == "":
        raise DataError(f"{where}: it is empty")
    if not isinstance(text, str):
        raise DataError(f"{where}: expected text, found {type(value).__name__}")
    if column.values and text.strip() not in column.values:
        raise DataError(f"{where}: it must be {' or '.join(column.values)}, got {text[:40]!r}")
    return text.strip() if column.values else text


def _find(where: str, names: Sequence[str], wanted: Sequence[Column], advice: str = "") -> list[int]:
    """The places of the wanted columns among these names."""
    places = []
    for column in wanted:
        name = str(column.given or column.name)
        alike = [place for place, other in enumerate(names) if other.strip().casefold() == name.casefold()]
        if not alike:
            raise DataError(f"{where} has no column {name!r}{nearest(name, [other[:40] for other in names])}{advice}")
        places.append(names.index(name) if name in names else alike[0])
    return places


def _delimited(
    where: str, suffix: str, content: bytes, wanted: tuple[Column, ...], quotes: bool
) -> tuple[list[list[str]], int]:
    """The wanted columns of CSV or TSV, and the number of the first row of data, counted from 1."""
    import csv

    import pandas

    quoting = csv.QUOTE_MINIMAL if quotes or suffix == ".csv" else csv.QUOTE_NONE
    options: dict[str, Any] = {"sep": "," if suffix == ".csv" else "\t", "quoting": quoting, "skip_blank_lines": False}
    text = _decoded(where, content)
    if not text.strip():
        raise DataError(f"{where} is empty")
    try:
        frame = pandas.read_csv(io.StringIO(text, newline=""), header=None, dtype=str, na_filter=False, **options)
    except ValueError as error:  # pandas' ParserError is one
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        reason = re.sub(r"(?<=at row )\d+", lambda found: str(int(found[0]) + 1), reason)  # the only number from 0
        raise DataError(f"{where} cannot be read: {reason}") from error
    names = frame.iloc[0].tolist()
    places = _without_header(where, names, wanted)
    if header := places is None:
        places = _find(where, names, wanted, _advice(wanted))
    return [frame[place].tolist()[header:] for place in places], 1 + header


def _without_header(where: str, first: list[str], wanted: tuple[Column, ...]) -> list[int] | None:
    """The places of the columns in a file whose first line is data; None where it is a header, or could be."""
    given = [column.given for column in wanted]
    if all(isinstance(place, int) for place in given):
        for column in wanted:
            if not 1 <= int(column.given or 0) <= len(first):
                raise DataError(f"{where} has {len(first)} columns: {column.name}: {column.given} is none of them")
        return [int(place or 0) - 1 for place in given]
    words = {cell.strip().casefold() for cell in first}
    like_names = all(re.fullmatch(r"[^\W\d][\w.-]*", word) for word in words)
    if any(given) or len(first) != len(wanted) or like_names or words & {column.name for column in wanted}:
        return None
    return list(range(len(wanted)))


def _advice(wanted: tuple[Column, ...]) -> str:
    if any(column.given is not None for column in wanted):
        return ""
    by_name = ", ".join(f"{column.name}: NAME" for column in wanted)
    by_place = ", ".join(f"{column.name}: {place}" for place, column in enumerate(wanted, 1))
    return f" (name the columns: {by_name}; or, if the first line is no header, count them: {by_place})"


def _typed(where: str, suffix: str, content: bytes, wanted: tuple[Column, ...]) -> list[list[Any]]:
    """The wanted columns of Parquet or JSON Lines."""
    import pyarrow
    from pyarrow import parquet

    try:
        if suffix == ".parquet":
            about = parquet.read_metadata(pyarrow.BufferReader(content))
            if about.num_rows > len(content):  # equal ones, which a few bytes may stand for
                raise DataError(f"{where} has {about.num_rows:,} rows in {len(content):,} bytes: no text is that short")
            table = parquet.read_table(pyarrow.BufferReader(content))
        else:
            table = pyarrow.Table.from_struct_array(pyarrow.array(_objects(where, content)))
        table = table.flatten() if any("." in str(column.given) for column in wanted) else table
        return [table.column(place).to_pylist() for place in _find(where, table.column_names, wanted)]
    except (pyarrow.ArrowException, OSError, OverflowError, UnicodeError) as error:  # what a damaged file leads to
        raise DataError(f"{where} cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}") from error


def _objects(where: str, content: bytes) -> list[dict[str, Any]]:
    """The object in each line."""
    lines = _decoded(where, content).rstrip().split("\n")
    if lines == [""]:
        raise DataError(f"{where} is empty")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{where}, row {number} is not JSON: {error.msg} at character {error.pos + 1}") from error
        except (ValueError, RecursionError):
            raise DataError(f"{where}, row {number} has a number of too many digits, or is nested too deeply") from None
        if not isinstance(found[-1], dict):
            raise DataError(f"{where}, row {number} is not an object, {{…}}")
    return found


def _decoded(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{where} is not UTF-8 in line {line}: save it as UTF-8") from error


def _of_hub(task: str, hub: str, split: str) -> list[Path]:
    """The files of a split, downloaded where they are not here."""
    owner, _, rest = hub.partition("/")
    name, _, below = rest.partition("/")
    if not (owner and name):
        raise ValueError(f"{task}: hub must be owner/name, or owner/name/folder, got {hub!r}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise DataError(f"{task}: data sets of the hub need: pip install 'zoobench[hub]' ({error})") from error
    patterns = [f"{below}*{split}*{suffix}" for suffix in ON_HUB]
    variable = offline()
    try:
        root = snapshot_download(
            f"{owner}/{name}", repo_type="dataset", allow_patterns=patterns, local_files_only=variable is not None
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        barred = f"it is not here, and {variable} forbids the network"
        raise DataError(f"{task}: hub data set {hub}: {barred if variable else reason}") from error
    files = sorted(file for file in Path(root, below).rglob("*") if file.suffix in ON_HUB)
    files = [file for file in files if split in re.split(r"[\W_]+", str(file.relative_to(root)))]
    if not files:
        raise DataError(f"{task}: hub data set {hub} has no file ({', '.join(ON_HUB)}) of split {split!r}")
    return files
