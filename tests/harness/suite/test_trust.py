"""Nothing runs unasked: each case would leave a file by being imported or evaluated."""

import json
import shutil

import pytest
import yaml

import zoo
from harness.plan.expand import expand
from harness.records.store import Store
from harness.suite.load import load
from zoo.tokenizers import TokenizerError, make

from ..conftest import TINY
from ..made import do


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "mark"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Two runs of a suite, with their weights."""
    base = tmp_path_factory.mktemp("base")
    (base / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    loaded, store = load(base / "tiny.yaml"), Store("tiny", base)
    specs = [spec for spec in expand(loaded) if spec.architecture == "lstm"]
    store.describe(loaded.described(specs))
    for spec in specs:
        store.write(do(spec, store.run_folder(spec.run_id), keep=True, plugins=(str(base / "evil.py"),)))
    return base


@pytest.fixture
def results(base, tmp_path, mark):
    """Their suite has come to name a plug-in, as the folders of their models do."""
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.glob("tiny/*/model/zoo.json"):
        file.write_text(file.read_text().replace(str(base), str(tmp_path)))
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'a').write('x')\n")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "plugins": ["evil.py"]}))
    (tmp_path / "child.yaml").write_text("extends: tiny.yaml\n")
    return tmp_path


def test_reading_imports_nothing(results, mark, call):
    given = ("--results", results)
    for name in ("tiny.yaml", "child.yaml"):
        suite = results / name
        for words in (("board",), ("status",), ("publish",), ("submit",), ("plot",)):
            out = ("--out", results / "made.zip") if words == ("submit",) else ()
            call(*words, suite, *given, *out)
        call("compare", "lstm", "lstm", suite, *given)
        for word in ("validate", "plan"):
            said = call(word, suite, status=2).stderr
            assert "plugins: names code that was not trusted before" in said
            assert "evil.py; read it, then say --trust" in said
    run = str(next(results.glob("tiny/*/model")).parent)
    call("export", run, results / "exported")
    call("verify", results)
    call("site", results / "site", *given)
    assert not mark.exists()


def test_trust_is_remembered_for_this_content(results, mark, call):
    call("validate", results / "tiny.yaml", "--trust")
    call("validate", results / "child.yaml")
    assert mark.read_text() == "x", "imported once in this process"
    with (results / "evil.py").open("a") as file:
        file.write("# more\n")
    call("validate", results / "tiny.yaml", status=2)


def test_a_model_s_plug_in_is_named_by_the_person(results, mark, call):
    file = next(results.glob("tiny/*/model/zoo.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "architecture": "unheard_of"}))
    said = call("generate", file.parents[1], status=2).stderr
    assert "evil.py: name it with --plugin" in said
    assert not mark.exists()


def test_a_folder_of_questions_is_code(results, call):
    run = next(results.glob("tiny/*/model")).parent
    (results / "tasks").mkdir()
    (results / "tasks" / "t.yaml").write_text("task: t\n")
    said = call("eval", run, "--tasks", "t", "--include", results / "tasks", status=2).stderr
    assert "--include: names code that was not trusted before" in said


def test_no_hub_without_its_scheme(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    for where in ("org/name", "rwkv:org/name", "transformers:org/name"):
        with pytest.raises(ValueError, match="a model on the hub is hf:owner/name"):
            zoo.load(where)


def test_a_vocabulary_is_not_evaluated(tmp_path, mark):
    pytest.importorskip("rwkv")
    (tmp_path / "v.txt").write_text(f"1 'a' 1\n2 open({str(mark)!r}, 'w') 1\n")
    with pytest.raises(TokenizerError, match=r"v\.txt: its lines must be"):
        make({"kind": "rwkv_world", "path": str(tmp_path / "v.txt")})
    assert not mark.exists()
