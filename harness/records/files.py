"""JSON files of records: what is read becomes a UserError where it cannot be; what is written is whole or not there."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import UserError, os_error
from harness.records.parts import Mismatch, plain
from zoo import files


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that it is either whole or not there, and outlasts a loss of power."""
    files.write(path, text)


def write_page(folder: Path, path: str, text: str) -> None:
    """Write a file of a site, or of a folder like it, that can be made again; `path` is relative to it."""
    files.write(files.inside(folder, path), text, sync=False)


def to_json(data: Any) -> str:
    """Readable JSON; NaN and infinities become null, so that any reader can parse it.

    What would command a terminal is escaped, all other letters stand as they are.
    """
    text = json.dumps(finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return re.sub(r"[^\n -~]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], text)


def finite(data: Any) -> Any:
    """The data as JSON reads it again, with None for NaN and infinities."""
    return json.loads(json.dumps(plain(data)), parse_constant=lambda name: None)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A context in which what a file holds is looked at: a Mismatch becomes a UserError that names it."""
    try:
        yield
    except Mismatch as error:
        raise UserError(str(error), file=path) from None


def read_json(path: Path, what: str = "JSON") -> dict[str, Any]:
    """The mapping in a JSON file, which is called `what` where it is none; empty where there is no file.

    Raises:
        UserError: it cannot be read, or holds no mapping.
    """
    try:
        data = files.read_json(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(os_error(error).removeprefix(f"{path}: "), file=path) from None
    except ValueError as error:
        raise UserError(f"not {what}: {error}", file=path) from None
    if not isinstance(data, dict):
        raise UserError(f"not {what}: must hold a JSON object", file=path)
    return data
