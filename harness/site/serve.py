"""Show a site on this machine, and make it anew while suites run."""

import functools
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from harness.records.store import default_root
from harness.site.build import build
from zoo import files

EVERY = 3.0
"""Seconds between two looks at the records."""


class _Own(SimpleHTTPRequestHandler):
    """Serves what lies in the folder itself to who asks this machine by its own name."""

    def send_head(self) -> Any:
        host = str(self.headers.get("Host", "")).rpartition(":")
        asked = Path(self.translate_path(self.path))
        try:
            if (host[0] or host[2]).lower() not in ("localhost", "127.0.0.1"):
                raise ValueError("pages from elsewhere could read ours")
            page = asked / "index.html" if asked.is_dir() else asked
            files.inside(Path(self.directory), page.relative_to(self.directory))
            return super().send_head()
        except (OSError, ValueError):
            self.send_error(HTTPStatus.FORBIDDEN)
            return None

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(folder: Path, names: Sequence[str], root: Path | None, port: int, say: Callable[[str], None]) -> None:
    """Serve a site to this machine alone until interrupted; it is made anew whenever a record is written."""
    server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Own, directory=str(folder)))
    stopped = threading.Event()
    follower = threading.Thread(target=_follow, args=(folder, names, root or default_root(), stopped, say), daemon=True)
    follower.start()
    say(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        stopped.set()
    finally:
        server.server_close()


def newest(root: Path) -> float:
    """When the last record under a folder of results was written, made here or published."""
    found = [*root.glob("*/*/record.json"), *root.glob("*/published.json")]
    return max((file.stat().st_mtime for file in found), default=0.0)


def _follow(
    folder: Path, names: Sequence[str], root: Path, stopped: threading.Event, say: Callable[[str], None]
) -> None:
    known = newest(root)
    while not stopped.wait(EVERY):
        if (now := newest(root)) != known:
            known = now
            try:
                build(folder, names, root, live=True)
            except Exception as error:  # a record may be half of what it will be; the next look tells
                say(f"not made anew: {error}")
