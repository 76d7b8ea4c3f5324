"""What building models tells is kept, for as long as the sources are the same."""

import pytest

import zoo
import zoo.size
from harness.catalog import entries as catalog
from harness.plan import sizes
from harness.plan.expand import expand
from harness.suite.load import load
from zoo import cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache of the user's."""
    monkeypatch.setenv("ZOOBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def known():
    with cache.kept() as found:
        return dict(found)


def test_what_is_kept_is_there_later_and_damage_is_no_cache(home, monkeypatch):
    with cache.kept() as found:
        found["a"] = [1, None]
    assert known() == {"a": [1, None]}
    assert [path.name for path in home.iterdir()] == ["models.json"]
    monkeypatch.setattr(cache, "_sources", lambda: "of another version")
    assert known() == {}
    monkeypatch.undo()
    monkeypatch.setenv("ZOOBENCH_CACHE", str(home))
    assert known() == {"a": [1, None]}
    edited = (home / "models.json").read_bytes().replace(b"[1, null]", b'{"width": "8"}')
    for damaged in (b"", b"{", b"[]", b"\xff", b'{"sources": 1}', edited):
        (home / "models.json").write_bytes(damaged)
        assert known() == {}


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOOBENCH_CACHE", str(tmp_path / "file"))
    with cache.kept() as found:
        found["a"] = 1
    assert known() == {}


def test_a_key_changes_with_every_source(tmp_path, monkeypatch):
    seen = set()
    for package, text in (("zoo", "1"), ("zoo", "2"), ("harness", "1"), ("harness", "2")):
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "a.py").write_text(text)
        monkeypatch.setattr(cache, "__file__", str(tmp_path / "zoo" / "cache.py"))
        seen.add(cache._sources.__wrapped__())
    monkeypatch.setattr(cache, "version", lambda package: "99")
    assert len({*seen, cache._sources.__wrapped__()}) == 5


def test_sizes_are_found_again_without_building(home, suite, monkeypatch):
    loaded = load(suite(architectures=["pre_ln", "mlp_mixer"], model={}, budget={"match": {"params": "20k"}}))
    specs = expand(loaded)
    found = sizes.solve(specs, loaded)
    assert isinstance(found[specs[1].cell], str), "unsupported, and kept too"
    monkeypatch.setattr(sizes, "resolve_size", lambda spec, task: pytest.fail(f"{spec.cell} was built again"))
    assert sizes.solve(specs, loaded) == found


def test_nothing_of_a_plugin_is_kept(home, suite):
    @zoo.register("mine")
    def mine() -> zoo.Recipe:
        return zoo.recipe("pre_ln")

    loaded = load(suite(architectures=["mine"]))
    sizes.solve(expand(loaded), loaded)
    assert catalog.find("mine")["roles"]
    assert known() == {}


def test_a_row_of_the_catalog_is_kept(home, monkeypatch):
    row = catalog.find("pre_ln")
    monkeypatch.setattr(catalog, "_examined", lambda name: pytest.fail(f"{name} was built again"))
    assert catalog.find("pre_ln") == row


def test_architectures_are_listed_by_what_they_can_do(home, monkeypatch):
    monkeypatch.setattr(zoo.architectures, "names", lambda: ["linformer", "lstm", "pre_ln", "rwkv4"])
    assert zoo.list() == ["linformer", "lstm", "pre_ln", "rwkv4"]
    assert zoo.list(role="lm") == ["lstm", "pre_ln", "rwkv4"]
    monkeypatch.setattr(zoo.size, "sketch_roles", lambda name: pytest.fail(f"{name} was built again"))
    assert zoo.list(causal="no") == ["linformer"]
    assert zoo.list(family="transformers", role="classify") == ["pre_ln"]
    with pytest.raises(ValueError, match=r"no architecture has role 'clasify'; did you mean 'classify'?"):
        zoo.list(role="clasify")
