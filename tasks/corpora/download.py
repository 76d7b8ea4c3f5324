"""Downloads, where they are kept, and whether the network may be used at all."""

import hashlib
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tasks.base import DataError
from zoo.files import open_regular

RETRIES = 2
"""Times that a download is tried again when the connection breaks off."""
TIMEOUT = 30.0
"""Seconds without an answer after which a connection counts as broken."""
Packed: TypeAlias = Literal["bzip2", "gzip", "zip"] | None
"""How a file on the web is packed."""

OFFLINE = ("ZOOBENCH_OFFLINE", "HF_HUB_OFFLINE")
"""Environment variables, either of which forbids every use of the network when set to anything but 0, no or false."""


def home() -> Path:
    """`$ZOOBENCH_HOME`, or else `~/.cache/zoobench`. It may not exist yet."""
    return Path(os.environ.get("ZOOBENCH_HOME") or "~/.cache/zoobench").expanduser().absolute()


def offline() -> str | None:
    """The environment variable that forbids the network, if one does."""
    on = (name for name in OFFLINE if os.environ.get(name, "").lower() not in ("", "0", "no", "off", "false"))
    return next(on, None)


def bar(about: str, total: int = 1) -> Any:
    """A progress bar of tqdm's, in bytes, on standard error where that is a terminal; pooch sets its own `total`."""
    from tqdm import tqdm

    return tqdm(desc=about, total=total, unit="B", unit_scale=True, disable=None, leave=False)


def download(url: str, into: Path, about: str, packed: Packed = None, member: str = "") -> None:
    """Put the file at `url` into `into`, unpacked: the file `member` of it where it is a zip archive.

    Raises:
        DataError: the server does not give it, the connection broke off each time, or it cannot be unpacked. Nothing
            of it is kept.
    """
    import pooch
    from requests import HTTPError, RequestException

    pooch.get_logger().setLevel("WARNING")  # the bar says enough
    unpack = {
        None: None,
        "zip": pooch.Unzip(members=[member]),
        "gzip": pooch.Decompress("gzip"),
        "bzip2": pooch.Decompress("bzip2"),
    }[packed]
    with tempfile.TemporaryDirectory(dir=into.parent) as folder, bar(about) as shown:
        # No hash: a card's is that of the unpacked content, and is checked by who asks.
        files = pooch.create(folder, "", registry={"it": None}, urls={"it": url}, retry_if_failed=RETRIES)
        by_http = pooch.HTTPDownloader(shown, chunk_size=1 << 18, timeout=TIMEOUT, headers={"User-Agent": "zoobench"})
        try:
            found = files.fetch("it", unpack, by_http)
            Path(found[0] if isinstance(found, list) else found).replace(into)
        except HTTPError as error:
            raise DataError(f"{about}: {url} answers {error.response.status_code} {error.response.reason}") from error
        except RequestException as error:
            cause: BaseException = error
            while cause.__context__:
                cause = cause.__context__
            reason = f"did not come ({cause}); check the network and run the same again"
            raise DataError(f"{about}: {url} {reason}") from error
        except (OSError, EOFError, LookupError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(
                f"{about}: {url} is damaged: as {packed or 'a file'} it cannot be read ({error})"
            ) from error


def digest(path: Path) -> tuple[str, int]:
    """SHA-256 in hex, and size in bytes."""
    state, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
            size += len(chunk)
    return state.hexdigest(), size
