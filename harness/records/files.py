"""JSON files, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.records.parts import plain


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that it is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def to_json(data: Any) -> str:
    """Readable JSON; NaN and infinities become null, so that any reader can parse it."""
    return json.dumps(finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def finite(data: Any) -> Any:
    """The data as JSON reads it again, with None for NaN and infinities."""
    return json.loads(json.dumps(plain(data)), parse_constant=lambda name: None)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty where there is no file.

    Raises:
        UserError: it cannot be read, or holds no mapping.
    """
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", file=path) from None
    if not isinstance(data, dict):
        raise UserError("must hold a JSON object", file=path)
    return data
