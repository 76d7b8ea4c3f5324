"""What building models and trying kernels tells, kept from one command to the next in the user's cache.

A file holds for one state of the sources and one version of torch, and has a hash of what it holds; one that is damaged
or was edited counts as none, and where nothing can be written, nothing is kept. It loads no torch.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zoo import files


@contextmanager
def kept(name: str = "models.json") -> Iterator[dict[str, Any]]:
    """What earlier commands kept in the file `name`, by key; what is added to it is there for later ones."""
    path, sources = home() / name, _sources()
    known = _read(path, sources)
    before = len(known)
    try:
        yield known
    finally:
        if len(known) > before:
            _write(path, {"sources": sources, "digest": _digest(known), "known": known})


def home() -> Path:
    """The user's folder of what can be made again."""
    return Path(os.environ.get("ZOOBENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "zoobench"))


@cache
def _sources() -> str:
    """A hash of the sources of `zoo` and of `harness` beside it, the proofs, and the version of torch."""
    digest = blake2b(f"torch {version('torch')}".encode(), digest_size=16)
    root = Path(__file__).parents[1]
    for path in sorted(path for package in ("zoo", "harness") for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    with suppress(FileNotFoundError):
        digest.update((root / "zoo" / "proofs.json").read_bytes())
    return digest.hexdigest()


def _read(path: Path, sources: str) -> dict[str, Any]:
    try:
        content = files.read_json(path.expanduser())
        known = dict(content["known"])
        return known if [content["sources"], content["digest"]] == [sources, _digest(known)] else {}
    except (OSError, RuntimeError, ValueError, TypeError, KeyError):  # RuntimeError: no home to expand
        return {}


def _digest(known: dict[str, Any]) -> str:
    return blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()


def _write(path: Path, content: dict[str, Any]) -> None:
    with suppress(OSError, RuntimeError):
        files.write(path.expanduser(), json.dumps(content), sync=False)
