"""Code that a suite names: imported only where the person who runs it has said so, once for each content of it."""

import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from harness.errors import UserError
from zoo import files

MOST = 1000
"""Files that a folder of code may have."""


def check(code: Iterable[str | Path], *, trusted: bool, error: Any = UserError) -> None:
    """Ask about code that was not trusted before, on a terminal; what is trusted is remembered with its content.

    Args:
        code: Python files, folders and modules. trusted: whether the person said so on the command line.
        error: makes the error of a message.

    Raises:
        UserError: it is not trusted.
    """
    found, known = {str(where): _digest(Path(where)) for where in code}, _known()
    new = {where: digest for where, digest in found.items() if known.get(where) != digest}
    if not new:
        return
    if not (trusted or _confirmed(new)):
        names = ", ".join(new)
        raise error(f"names code that was not trusted before: {names}; read it, then say --trust (trust=True)")
    with suppress(OSError, RuntimeError):  # no home, or a full disk: the next time it is asked again
        files.write(_path(), json.dumps(known | new, indent=1) + "\n")


def _confirmed(code: Iterable[str]) -> bool:
    """The person's answer; no without a terminal."""
    import click

    from harness.errors import printable

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return click.confirm(printable(f"This imports code: {', '.join(code)}. Do you trust it?"), err=True)


def _digest(where: Path) -> str:
    """BLAKE2 of a file, or of every file in a folder; empty for a module, which is trusted by its name."""
    digest = blake2b(digest_size=16)
    found = [where] if where.is_file() else sorted(islice(where.rglob("*"), MOST + 1))
    if len(found) > MOST:
        raise UserError(f"has more than {MOST} files; name a folder that holds tasks alone", file=where)
    for file in found:
        if file.is_file():
            digest.update(f"{file.relative_to(where)}\0{file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest() if found else ""


def _path() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config", "zoobench", "trusted.json").expanduser()


def _known() -> dict[str, str]:
    try:
        return dict(files.read_json(_path()))
    except (OSError, RuntimeError, ValueError, TypeError):
        return {}
