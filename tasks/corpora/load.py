"""Reads the content of a corpus and checks it against its card."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import zlib
from functools import lru_cache
from pathlib import Path

from tasks.base import DataError
from tasks.corpora.card import Card, Decode, LocalPath


@lru_cache(maxsize=8)
def load(card: Card) -> bytes:
    """The unpacked content of a corpus, from the first of its sources that is here. Kept in memory once it is verified.

    Raises:
        DataError: no source is here, or the content is damaged or not what the card says.
    """
    for source in card.sources:
        path = source.find()
        if path is not None:
            return _verified(card, path, _decoded(path, source.decode))
    raise DataError(f"corpus {card.name!r} is not here: {'; or '.join(s.advice() for s in card.sources)}")


def _decoded(path: Path, decode: Decode) -> bytes:
    try:
        packed = path.read_bytes()
        if decode == "bz2":
            return bz2.decompress(packed)
        return gzip.decompress(packed) if decode == "gzip" else packed
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as {decode or 'a file'}: {error}") from error


def _verified(card: Card, path: Path, content: bytes) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if (found, len(content)) != (card.sha256, card.size):
        raise DataError(
            f"{path} is not corpus {card.name!r}: expected {card.size} bytes with sha256 {card.sha256}, "
            f"found {len(content)} bytes with sha256 {found}"
        )
    return content


def of_file(path: str | Path) -> Card:
    """A card for a text file of the user's, as it is now: should it change before `load`, that is an error.

    Relative paths start at the working directory. The file is read once, to hash it.

    Raises:
        DataError: there is no such file, or it is empty or unreadable.
    """
    full = Path(path).expanduser().absolute()
    if not full.is_file():
        raise DataError(f"text file {full} {'is a folder' if full.is_dir() else 'does not exist'}")
    try:
        stat = full.stat()
        return _hashed(full, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataError(f"text file {full} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=8)
def _hashed(full: Path, length: int, changed: int) -> Card:
    """The card of a file of that length and time of change: every run of a suite asks for it, one reading serves."""
    digest, size = hashlib.sha256(), 0
    with full.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    if not size:
        raise DataError(f"text file {full} is empty")
    return Card(full.name, "a local file", "", "", (LocalPath(full),), digest.hexdigest(), size)
