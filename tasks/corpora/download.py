"""Downloads that go on where they broke off, where they are kept, and whether the network may be used at all."""

import contextlib
import hashlib
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tasks.base import DataError

ATTEMPTS = 5
"""Connections tried before giving up; the bytes that came stay for the next call."""
TIMEOUT = 30.0
"""Seconds without an answer after which a connection counts as broken."""
_CHUNK = 1 << 18


OFFLINE = ("ZOOBENCH_OFFLINE", "HF_HUB_OFFLINE")
"""Environment variables, either of which forbids every use of the network when set to anything but 0, no or false."""


def home() -> Path:
    """`$ZOOBENCH_HOME`, or else `~/.cache/zoobench`. It may not exist yet."""
    return Path(os.environ.get("ZOOBENCH_HOME") or "~/.cache/zoobench").expanduser().absolute()


def offline() -> str | None:
    """The environment variable that forbids the network, if one does."""
    on = (name for name in OFFLINE if os.environ.get(name, "").lower() not in ("", "0", "no", "off", "false"))
    return next(on, None)


@contextlib.contextmanager
def bar(about: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where that is a terminal: the function given is told of bytes that came."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(about, total=total, completed=done)
        yield lambda count: progress.advance(task, count)


def download(url: str, part: Path, about: str) -> None:
    """The file at `url`, into `part`; where `part` holds its beginning already, only the rest is asked for.

    Raises:
        DataError: the server does not give it, or the connection broke off `ATTEMPTS` times. `part` is kept then.
    """
    reason = ""
    for _ in range(ATTEMPTS):
        before = _size(part)
        try:
            if _rest(url, part, about):
                return
            reason = "the connection broke off"
        except HTTPError as error:
            raise DataError(f"{about}: {url} answers {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error or type(error).__name__).split("\n")[0]
        if _size(part) == before:
            break
    kept = f" after {_size(part)} bytes, from where the next attempt goes on" if _size(part) else ""
    raise DataError(f"{about}: {url} did not come ({reason}){kept}; check the network and run the same again")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _rest(url: str, part: Path, about: str) -> bool:
    """Ask for what `part` lacks; whether it is whole now."""
    have = _size(part)
    request = Request(url, headers={"User-Agent": "zoobench", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return True
        part.unlink()
        return False
    with response:
        goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        start = have if goes_on else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with part.open("ab" if goes_on else "wb") as file, bar(about, total, start) as came:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                came(len(chunk))
    return total is None or _size(part) >= total


def unzip(archive: Path, into: Path, member: str, limit: int | None) -> None:
    """One member of a downloaded zip archive, into a file; never more than `limit` + 1 bytes.

    Raises:
        DataError: it cannot be unpacked. Neither file is kept.
    """
    left = sys.maxsize if limit is None else limit + 1
    try:
        with zipfile.ZipFile(archive) as files, files.open(member) as file, into.open("wb") as target:
            while chunk := file.read(min(_CHUNK, left)):
                target.write(chunk)
                left -= len(chunk)
    except (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        archive.unlink(missing_ok=True)
        into.unlink(missing_ok=True)
        raise DataError(
            f"{archive.name} is damaged: as zip it cannot be read ({error}); it was removed, fetch it again"
        ) from error
    archive.unlink()


def digest(path: Path) -> tuple[str, int]:
    """SHA-256 in hex, and size in bytes."""
    state, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
            size += len(chunk)
    return state.hexdigest(), size


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file so that no one ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
