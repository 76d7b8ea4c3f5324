"""Corpora that are absent, damaged or changed are refused in one line, and nothing of them is kept."""

import bz2
import dataclasses
import gzip
import hashlib
import sys
from types import SimpleNamespace

import pytest

from tasks import DataError, corpora
from tasks.corpora import Card, Hub, InPackage, LocalPath

CONTENT = b"some bytes" * 100


def card_of(*sources, content: bytes = CONTENT) -> Card:
    return Card("little", "", "", "", sources, hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize(("decode", "pack"), [(None, bytes), ("bz2", bz2.compress), ("gzip", gzip.compress)])
def test_load_unpacks(tmp_path, decode, pack):
    (tmp_path / "f").write_bytes(pack(CONTENT))
    assert corpora.load(card_of(LocalPath(tmp_path / "f", decode))) == CONTENT


def test_sources_are_tried_in_order(tmp_path):
    (tmp_path / "b").write_bytes(CONTENT)
    assert corpora.load(card_of(LocalPath(tmp_path / "a"), LocalPath(tmp_path / "b"))) == CONTENT


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 3}])
def test_a_wrong_content_is_refused_and_not_kept(tmp_path, change):
    file = tmp_path / "f"
    file.write_bytes(CONTENT)
    card = dataclasses.replace(card_of(LocalPath(file)), **change)
    kept = corpora.load.cache_info().currsize
    for _ in range(2):
        with pytest.raises(DataError) as error:
            corpora.load(card)
        message = str(error.value)
        assert all(part in message for part in (str(file), card.sha256, hashlib.sha256(CONTENT).hexdigest(), "1000"))
        assert "\n" not in message
    assert corpora.load.cache_info().currsize == kept
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


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
            f"corpus 'little' is not here: it ships inside {source.distribution} (>=1,<2); "
            "install it with: pip install 'zoobench[data]'"
        )


def test_hub(monkeypatch, tmp_path):
    source = Hub("someone/some_bytes", "data/f.bz2", "a" * 40, decode="bz2")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install 'zoobench\[hub\]'"):
        corpora.load(card_of(source))

    def download(repo, file, *, revision, repo_type):
        assert (repo, file, revision, repo_type) == (source.repo, source.file, source.revision, "dataset")
        (tmp_path / "f").write_bytes(bz2.compress(CONTENT))
        return str(tmp_path / "f")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    assert corpora.load(card_of(source)) == CONTENT

    def fail(*args, **options):
        raise ConnectionError("no network\nand a long story")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=fail))
    with pytest.raises(DataError, match=r"ConnectionError: no network$"):
        corpora.load(card_of(dataclasses.replace(source, file="other")))


def test_get_names_the_nearest_and_minds_the_kind():
    with pytest.raises(ValueError, match="unknown corpus 'wikipedia'; did you mean 'wikipedia_xml'"):
        corpora.get("wikipedia")
    with pytest.raises(ValueError, match="'mnist_5k' holds images, not text; known: wikipedia_xml"):
        corpora.get("mnist_5k", "text")


def test_add(monkeypatch):
    monkeypatch.setattr("tasks.corpora.library._cards", {})
    card = corpora.add(card_of())
    assert corpora.add(card) is corpora.get("little") is card
    with pytest.raises(ValueError, match="already known"):
        corpora.add(dataclasses.replace(card, size=1))


def test_every_card_states_licence_and_url():
    for name in corpora.names():
        card = corpora.get(name)
        assert card.about
        assert card.licence
        assert card.url.startswith("https://")
        assert len(card.sha256) == 64
