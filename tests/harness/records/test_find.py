"""Runs by path, id and labels, and the models they leave."""

import json
from types import SimpleNamespace

import pytest
import torch

import zoo
from harness.errors import UserError
from harness.execute import runner
from harness.gates.registry import gates
from harness.plan.expand import expand
from harness.records.find import find_run, open_model
from harness.records.store import Store, read_record
from harness.suite.load import load
from harness.training.evaluate import evaluate
from zoo.contract import Batch
from zoo.published import PretrainedError

from ..made import do

SUITE = f"""
suite: kept
architectures: [{{pre_ln: {{heads: 2}}}}, lstm]
tasks: [text: {{length: 16}}]
budget: {{stop: {{tokens: 256}}}}
seeds: [0, 1]
model: {{width: 16, depth: 1}}
train: {{batch_tokens: 128}}
evaluate: {{test: 4, valid: 4, skip_gates: [{", ".join(gates())}]}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    (folder / "kept.yaml").write_text(SUITE)
    for spec in expand(load(folder / "kept.yaml")):
        make(spec, folder / "results", keep=True)
    return folder / "results"


def make(spec, root, *, keep):
    """A run, without a process of its own."""
    store = Store("kept", root)
    folder = store.run_folder(spec.run_id)
    store.write(do(spec, folder, suite="kept", keep=keep))
    return folder


def test_a_run_is_found_by_path_id_and_labels(root, monkeypatch):
    folder = find_run("kept/lstm/text/1", root)
    spec = read_record(folder / "record.json").spec
    assert (spec.architecture, spec.seed) == ("lstm", 1)
    assert find_run(str(folder)) == find_run(str(folder / "record.json")) == folder
    assert find_run(folder.name, root) == find_run(folder.name[:8], root) == folder
    assert read_record(find_run("kept/lstm", root) / "record.json").spec.seed == 0, "the first seed stands for all"
    assert find_run("org/name", root) is None
    monkeypatch.chdir(folder / "model")
    assert find_run("..") == find_run("../record.json") == folder


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("kept/lsmt", "did you mean 'lstm'"),
        ("kept/lstm/text/7", "known: 0, 1"),
        ("0123456789abcdef", "no run 0123456789abcdef under"),
        ("nowhere", "no such file or folder$"),
        ("kpet/lstm", "did you mean kept/lstm?"),
        ("org/name", "a model on the hub is hf:org/name"),
    ],
)
def test_what_is_no_run_is_refused_without_the_network(root, reference, words, monkeypatch):
    monkeypatch.setattr("zoo.published.files.find", lambda *given: pytest.fail(f"{given} was looked for on the hub"))
    with pytest.raises(UserError, match=words):
        open_model(reference, root)


def test_a_scheme_leads_to_the_hub(root, monkeypatch):
    asked = []

    def find(where, *_):
        asked.append(where)
        raise PretrainedError("offline")

    monkeypatch.setattr("zoo.published.files.find", find)
    for reference in ("hf:org/name", "rwkv:org/name"):
        with pytest.raises(UserError, match="offline"):
            open_model(reference, root)
    assert asked == ["hf:org/name", "org/name"], "the second is a path"


def test_the_model_scores_as_its_record_says(root):
    folder = find_run("kept/pre_ln/text/0", root)
    record, model = read_record(folder / "record.json"), open_model("kept/pre_ln/text/0", root)
    assert model.tokenizer.kind == "bytes"
    scores = evaluate(model, record.spec.build_task(), "test", size=8, limit=4)
    assert scores == pytest.approx(record.metrics.test, rel=1e-6)
    tokens = torch.tensor([model.tokenizer.encode("a text")])
    assert torch.equal(model(Batch(inputs=tokens)), zoo.load(folder)(Batch(inputs=tokens)))


def test_a_run_without_weights_says_how_to_get_them(root, tmp_path):
    record = json.loads((find_run("kept/lstm/text/0", root) / "record.json").read_text())
    folder = tmp_path / record["run_id"]
    folder.mkdir()
    for status, words in (("ok", "zoobench run kept"), ("diverged", "did not end well .diverged.")):
        (folder / "record.json").write_text(json.dumps({**record, "status": status}))
        with pytest.raises(UserError, match=words):
            open_model(str(folder))


def test_options_are_for_published_weights(root):
    with pytest.raises(UserError, match=r"a run is opened as it is; tokenizer is for published weights"):
        open_model("kept/lstm", root, tokenizer="bytes")
    with pytest.raises(UserError, match=r"kind zoo has no option 'tokenizer'"):
        open_model(f"zoo:{find_run('kept/lstm', root)}", root, tokenizer="bytes")


def test_weights_can_be_dropped_and_trials_keep_none(root, tmp_path):
    (tmp_path / "kept.yaml").write_text(SUITE + "weights: drop\n")
    loaded = load(tmp_path / "kept.yaml")
    spec = expand(loaded)[0]
    call = SimpleNamespace(loaded=loaded, store=Store("kept", tmp_path), threads=1)
    assert not runner._job(spec, None, call).keep
    assert find_run("kept/pre_ln/text/0", root).name == spec.run_id, "the same run"
    assert not (make(spec, tmp_path, keep=False) / "model").exists()
    assert not (make(spec.replace(kind="trial"), tmp_path, keep=True) / "model").exists()
