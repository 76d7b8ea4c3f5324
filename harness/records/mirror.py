"""Results at a URL (`s3://bucket/results`), in any storage that fsspec knows: a folder here mirrors them.

All else reads and writes the folder. What is there and not here is fetched when it is opened; what is new here is sent
while a suite runs and at the end, a record last and only where there is none. Who works on a run has a lease beside it:
an object that only one can create, and whose content changes while its holder lives.
"""

import contextlib
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import UserError
from zoo import files
from zoo.cache import home

EVERY = 15.0
"""Seconds between two times that what is new is sent; leases are renewed then, too."""
STALE = 120.0
"""Seconds after which a lease that has not changed is void."""
RECORD, LEASE, WEIGHTS = "record.json", "lease-", "model"
HERE = ("lock", "output.txt")
"""Files of a run's `checkpoint` and folder that stay here."""


class Mirror:
    """Results at a URL, and the folder here that mirrors them.

    Args:
        folder: by default one of the user's cache, a folder for each URL.

    Raises:
        UserError: fsspec cannot open the URL, or what it needs for it is not installed.
    """

    def __init__(self, url: str, folder: Path | None = None) -> None:
        import fsspec

        self.url = url
        try:
            self.files, self.base = fsspec.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise UserError(str(error), file=url) from None
        own = home().expanduser() / "results" / blake2b(url.encode(), digest_size=8).hexdigest()
        self.folder = (folder or own).absolute()
        self.sent: dict[str, Any] = {}
        """By path, the file here that is as it is there."""
        self.leases: dict[str, str] = {}
        """By run, the path of the lease that is ours."""
        self.watched: dict[str, tuple[bytes, float]] = {}
        """The leases of others: what they last said, and since when."""
        self.busy = threading.Lock()

    @cached_property
    def me(self) -> str:
        """The name of this process."""
        return f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"

    def _there(self, path: str) -> str:
        return f"{self.base}/{path}"

    def fetch(self, below: str = "", *, weights: bool = False) -> None:
        """Make what is there, below a path, be here too: all but checkpoints, and weights where they are asked for."""
        with self._named():
            self.files.invalidate_cache()
            known = self._known()
            for name, about in self.files.find(self._there(below), detail=True).items():
                path = PurePosixPath(name).relative_to(PurePosixPath(self.base))
                left = {"checkpoint", *(() if weights else (WEIGHTS,))} & {*path.parts[:-1]}
                if about["type"] == "file" and not left:
                    self._fetch(str(path), known)
            files.write(self.folder / ".there.json", json.dumps(known), sync=False)

    def _known(self) -> dict[str, str]:
        """By path, what stood there when it was fetched."""
        with contextlib.suppress(OSError, ValueError):
            known = files.read_json(self.folder / ".there.json")
            return known if isinstance(known, dict) else {}
        return {}

    def _fetch(self, path: str, known: dict[str, str]) -> None:
        here = files.inside(self.folder, path)
        key = str(self.files.ukey(self._there(path)))
        if known.get(path) != key or not here.is_file() or self.sent.get(path, stamp := _stamp(here)) != stamp:
            with files.whole(here) as part:
                self.files.get_file(self._there(path), str(part))
            known[path] = key
        self.sent[path] = _stamp(here)

    def send(self) -> None:
        """Send every file here that is not there as it is, the records last."""
        with self.busy, self._named():
            new = [path for path, stamp in self._own() if self.sent.get(path) != stamp]
            for path in sorted(new, key=lambda path: (path.endswith(f"/{RECORD}"), path)):
                with contextlib.suppress(FileNotFoundError):  # a checkpoint whose run has ended meanwhile
                    self._send(path)

    def renew(self) -> None:
        """Show that the holder of our leases lives."""
        with self._named():
            for path in [*self.leases.values()]:
                self._put(path, f"{self.me} {time.time_ns()}".encode())

    def _own(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """The files here that belong there, too: no links, and nothing that is half written."""
        for place, _, names in os.walk(self.folder):
            for name in names:
                path = Path(place, name)
                with contextlib.suppress(FileNotFoundError):
                    if name[0] != "." and name not in HERE and stat.S_ISREG(path.lstat().st_mode):
                        yield path.relative_to(self.folder).as_posix(), _stamp(path)

    def _send(self, path: str) -> None:
        here, stamp = self.folder / path, _stamp(self.folder / path)
        if path.endswith(f"/{RECORD}"):
            self._send_record(path)
        else:
            self.files.put_file(str(here), self._there(path))
        self.sent[path] = stamp

    def _send_record(self, path: str) -> None:
        """Send a record, unless there is another of the same run, which then is the one here, too."""
        here, run = self.folder / path, path.rpartition("/")[0]
        if path in self.sent:  # with new answers
            self.files.pipe_file(self._there(path), here.read_bytes())
            return
        try:
            self._create(path, here.read_bytes())
        except FileExistsError:
            self.sent[path] = None
            self.fetch(run)
        self._delete(f"{run}/checkpoint")
        self.leases.pop(run, None)

    def has(self, run: str) -> bool:
        """Whether there is a record of a run (`suite/run_id`), which then is here, too."""
        with self._named():
            self.files.invalidate_cache()
            found = bool(self.files.exists(self._there(f"{run}/{RECORD}")))
        if found:
            self.fetch(run)
        return found

    def lease(self, run: str) -> bool:
        """Take the lease of a run, and its last checkpoint; False where another has it.

        A lease is void where its holder gave it up, or died on this machine, or did not renew it for `STALE` seconds
        in which we looked. Who takes it over creates the next one, which only one can.
        """
        if run in self.leases:
            return True
        with self._named():
            self.files.invalidate_cache()
            folder = self._there(f"{run}/checkpoint")
            names = [name for name in self.files.find(folder) if PurePosixPath(name).name.startswith(LEASE)]
            numbers = sorted(int(name.rpartition("-")[2]) for name in names)
            if numbers and not self._void(f"{run}/checkpoint/{LEASE}{numbers[-1]}"):
                return False
            path = f"{run}/checkpoint/{LEASE}{numbers[-1] + 1 if numbers else 0}"
            try:
                self._create(path, self.me.encode())
            except FileExistsError:
                return False
            self.leases[run] = path
            for name in self.files.find(folder):
                left = PurePosixPath(name).relative_to(PurePosixPath(self.base))
                if not left.name.startswith(LEASE):
                    self._fetch(str(left), {})
            return True

    def _void(self, path: str) -> bool:
        try:
            said = self.files.cat_file(self._there(path))
        except FileNotFoundError:  # its run has ended
            return False
        before, since = self.watched.get(path, (b"", 0.0))
        if said != before:
            self.watched[path] = said, since = said, time.monotonic()
        host, _, rest = said.decode(errors="replace").partition(" ")
        dead = host == socket.gethostname() and not _alive(rest.partition(" ")[0])
        return not said or dead or time.monotonic() - since > STALE

    def give_up(self, run: str) -> None:
        """Let others take a run whose lease we have."""
        if path := self.leases.pop(run, None):
            with self._named():
                self._put(path, b"")

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """A context in which what is new here is sent every `EVERY` seconds, and all of it at the end."""
        over = threading.Event()

        def keep(work: Callable[[], None]) -> None:
            while not over.wait(EVERY):
                with contextlib.suppress(UserError):  # the network is away; the end tells
                    work()

        for work in (self.send, self.renew):  # weights may take longer than a lease
            threading.Thread(target=keep, args=(work,), daemon=True).start()
        try:
            yield
        finally:
            over.set()
            self.send()
            for run in [*self.leases]:
                self.give_up(run)

    def _create(self, path: str, content: bytes) -> None:
        """Write a new object.

        Raises:
            FileExistsError: there is one.
        """
        self.files.makedirs(self._there(path).rpartition("/")[0], exist_ok=True)
        self.files.pipe_file(self._there(path), content, mode="create")

    def _put(self, path: str, content: bytes) -> None:
        self.files.pipe_file(self._there(path), content)

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.files.rm(self._there(path), recursive=True)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """A context in which what goes wrong with the storage is told with its URL."""
        try:
            yield
        except (UserError, FileExistsError):
            raise
        except Exception as error:  # each storage raises errors of its own
            raise UserError(f"{type(error).__name__}: {error}", file=self.url) from error


def _stamp(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


_opened: dict[Path, Mirror] = {}
"""The mirrors of this process, by their folders."""


def folder_of(results: str | Path) -> Path:
    """The folder of results, which mirrors them where they are at a URL.

    Raises:
        UserError: the URL cannot be opened.
    """
    if "://" not in str(results):
        return Path(results)
    for mirror in _opened.values():
        if mirror.url == str(results):
            return mirror.folder
    mirror = Mirror(str(results))
    mirror.folder.mkdir(parents=True, exist_ok=True)
    mirror.fetch()
    _opened[mirror.folder] = mirror
    return mirror.folder


def mirror_of(root: Path | None) -> Mirror | None:
    """The mirror that a folder of results is, if it is one that was opened."""
    return _opened.get(root) if root is not None else None
