"""Sources that lie elsewhere: files on the web and on the Hugging Face hub. Only `download` uses the network.

Only data files are read (text, parquet); no code of a data set is run and nothing is unpickled.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.base import DataError
from tasks.corpora import download as web
from tasks.corpora.card import Card, Source


class Remote(Source):
    """A source that has to be downloaded before `find` finds it. What is unpacked is kept as one file of the cache."""

    __slots__ = ()
    name: str

    @property
    def path(self) -> Path:
        """Where the content is kept."""
        return web.home() / "corpora" / self.name

    @property
    def part(self) -> Path:
        """Where it grows."""
        return self.path.with_name(f"{self.name}.part")

    def find(self) -> Path | None:
        return self.path if self.path.is_file() else None

    @abstractmethod
    def download(self, card: Card) -> Path:
        """Bring the content here, to a file that `find` does not yet find.

        Raises:
            DataError: it cannot be had.
        """

    def keep(self, path: Path) -> Path:
        """Put what `download` brought, once it is verified, where `find` finds it."""
        return path.replace(self.path)

    def forget(self) -> None:
        """Remove every trace of it from the cache."""
        for path in (self.path, self.part):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Url(Remote):
    """A file on the web, or one file of a zip archive there."""

    url: str
    name: str
    """Its name in the cache, and inside of a zip archive."""
    packed: web.Packed = None

    def advice(self) -> str:
        return f"it comes from {self.url}; get it with: zoobench fetch {self.name}"

    def download(self, card: Card) -> Path:
        self.part.parent.mkdir(parents=True, exist_ok=True)
        web.download(self.url, self.part, card.name, self.packed, self.name)
        return self.part


@dataclass(frozen=True, slots=True)
class HubText(Remote):
    """The beginning of the text of a data set on the Hugging Face hub, at a fixed revision.

    Documents are read from `files` in order, each followed by `separator`, until there are `limit` bytes; the last
    character is whole. Only what is needed of the files is transferred. A download that breaks off starts anew.
    """

    repo: str
    revision: str
    """A commit hash, so that the files cannot change."""
    files: tuple[str, ...]
    """Parquet files, or plain text ones (`.txt`), each of which is one document."""
    name: str
    """Its name in the cache."""
    limit: int
    """Bytes."""
    column: str = "text"
    separator: str = "\n\n"

    def advice(self) -> str:
        return (
            f"it comes from data set {self.repo} on the Hugging Face hub; "
            f"get it with: pip install 'zoobench[hub]' && zoobench fetch {self.name}"
        )

    def download(self, card: Card) -> Path:
        self.part.parent.mkdir(parents=True, exist_ok=True)
        left = self.limit
        try:
            with self.part.open("wb") as out, web.bar(card.name, self.limit) as shown:
                for document in self._documents():
                    data = (document + self.separator).encode()
                    whole = data if len(data) <= left else data[:left].decode(errors="ignore").encode()
                    out.write(whole)
                    shown.update(len(whole))
                    left -= len(data)
                    if left <= 0:
                        break
        except BaseException as error:
            self.part.unlink(missing_ok=True)
            if isinstance(error, ImportError):
                raise DataError(f"corpus {card.name!r}: {error}; {self.advice()}") from error
            if isinstance(error, Exception):
                first_line = (str(error).splitlines() or [""])[0]
                raise DataError(f"hub data set {self.repo}: {type(error).__name__}: {first_line}") from error
            raise
        return self.part

    def _documents(self) -> Iterator[str]:
        from huggingface_hub import HfFileSystem

        hub = HfFileSystem()
        for name in self.files:
            with hub.open(f"datasets/{self.repo}@{self.revision}/{name}", "rb") as file:
                if name.endswith(".txt"):
                    yield file.read().decode()
                    continue
                from pyarrow import parquet

                for batch in parquet.ParquetFile(file).iter_batches(columns=[self.column], batch_size=1024):
                    yield from (text for text in batch.column(0).to_pylist() if text is not None)
