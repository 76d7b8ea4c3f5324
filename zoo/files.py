"""Reads files that may be anything, and writes files that are whole or not there.

A file to be read may come from elsewhere: it must be a regular one (opening a pipe or a device would wait or never
end) of bounded size. A file to be written is a new one of a name that nobody else has, which then takes the place of
the old: a reader sees one or the other, and what lies there under the old name, a link among them, is not written to.
"""

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

MOST_JSON = 256 << 20
"""Bytes of the largest JSON file that is read."""
MOST = 16 << 30
"""Bytes of the largest file that is read whole."""
_SUFFIX = ".part"
_NO_WAIT, _NO_FOLLOW = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_NOFOLLOW", 0)


def user_path(path: str | Path) -> Path:
    """The absolute path of what a user names; `~` is a home."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:  # nobody of this name
        return Path(path).absolute()


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises:
        OSError: there is none, or a folder, pipe or device.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _NO_WAIT | getattr(os, "O_BINARY", 0))
    except ValueError:  # a zero byte
        raise OSError(errno.EINVAL, "No file can have this name", str(path)) from None
    kind = os.fstat(handle).st_mode
    if not stat.S_ISREG(kind):
        os.close(handle)
        raise OSError(errno.EINVAL, "Is a directory" if stat.S_ISDIR(kind) else "Not a regular file", str(path))
    return os.fdopen(handle, "rb")


def read_bytes(path: str | Path, most: int = MOST) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: it cannot be read, or has more than `most` bytes.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"Has more than {most:,} bytes", str(path))
        return file.read()


def read_text(path: str | Path, most: int = MOST_JSON) -> str:
    """The UTF-8 text of a regular file.

    Raises:
        OSError: as `read_bytes`. UnicodeDecodeError: it is something else.
    """
    return read_bytes(path, most).decode("utf-8")


def read_json(path: str | Path, most: int = MOST_JSON) -> Any:
    """What a JSON file holds; of a key that stands twice, the last counts.

    Raises:
        OSError: as `read_bytes`. ValueError: it is no JSON, or nested more than 200 deep.
    """
    from pydantic_core import from_json

    return from_json(read_bytes(path, most), cache_strings="keys")


@contextmanager
def whole(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A new empty file to be written, which takes the place of `path` at the end; on an error nothing changes.

    Args:
        sync: whether it must be on the disk before that, so that it outlasts a loss of power.

    Raises:
        OSError: it cannot be written; `filename` is the path.
    """
    part = path.with_name(f".{secrets.token_hex(8)}{_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666))
        yield part
        if sync:
            _sync(part)
        part.replace(path)
        if sync:
            _sync(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except Exception as error:  # torch and safetensors tell of a full disk in words of their own
        if shutil.disk_usage(path.parent).free > 1 << 20:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink()


def write(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Write a file so that it is either whole or not there; `sync` and errors as of `whole`."""
    with whole(path, sync=sync) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, *, older: float = 0.0) -> None:
    """Remove what killed writers left in a folder: of so many seconds, or nobody else may be writing to it now.

    Nothing is removed through a symbolic link, as nothing is written through one.
    """
    for part in () if folder.is_symlink() else folder.glob(f".*{_SUFFIX}"):
        with suppress(OSError):
            if not older or time.time() - part.lstat().st_mtime > older:
                part.unlink()


def inside(folder: Path, *below: str | Path) -> Path:
    """A path below a folder, to be written to.

    Raises:
        OSError: it leads out of the folder, or is or passes a symbolic link below it.
    """
    path = Path(*below)
    if path.is_absolute() or ".." in path.parts:
        raise OSError(errno.EINVAL, f"Leads out of {folder}", str(path))
    for part in [path, *path.parents][:-1]:
        if (folder / part).is_symlink():
            raise OSError(errno.ELOOP, "Is a symbolic link, and nothing is written through one", str(folder / part))
    return folder / path
