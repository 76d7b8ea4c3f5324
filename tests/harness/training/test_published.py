"""Rows of published weights: in a suite, against a task, in a record."""

import json

import pytest
import torch

import tasks
import zoo
from harness.errors import UserError
from harness.plan.expand import expand
from harness.plan.published_rows import open_weights, size, weights_digest
from harness.plan.sizes import solve
from harness.plan.trials import trials
from harness.records.record import External
from harness.suite import pretrained
from harness.suite.load import load
from harness.training.published import score_published
from zoo import tokenizers
from zoo.contract import Batch, Shape
from zoo.types import Unsupported

HEAD = """
suite: bought
tasks: [text: {length: 16}]
budget: {match: {params: 4k, tolerance: 40%}, stop: {tokens: 512}}
seeds: [3, 4]
evaluate: {test: 6, valid: 4}
"""


@pytest.fixture
def folder(tmp_path):
    """A model in a folder, random but saved: its scores are known from the model itself."""
    torch.manual_seed(0)
    model = zoo.build("gru", "lm", shape=Shape(length=16, vocab=256, outputs=256, width=8, depth=1)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    model.tokenizer = tokenizers.Bytes()
    zoo.save(model, tmp_path / "bought-gru")
    return tmp_path / "bought-gru"


def suite(tmp_path, entry, more=""):
    path = tmp_path / "bought.yaml"
    path.write_text(f"{HEAD}architectures:\n  - gru\n  - pretrained: {entry}\n{more}")
    return path


def row(folder, tmp_path):
    """The spec of a row of the weights in a folder."""
    return next(spec for spec in expand(load(suite(tmp_path, f"{{zoo: {folder}}}"))) if spec.pretrained)


def test_a_row_stands_once_and_is_neither_matched_nor_tuned(folder, tmp_path):
    loaded = load(suite(tmp_path, f"{{zoo: {folder}}}", "tuning: {lr: [1e-3, 2e-3]}\n"))
    own = [spec for spec in expand(loaded) if spec.pretrained]
    stand = [(spec.architecture_label, spec.seed, spec.match, spec.stop) for spec in own]
    assert stand == [("bought-gru", 3, None, None)]
    assert {spec.architecture for spec in trials(loaded)} == {"gru"}
    solved = solve(own, loaded)[own[0].cell]
    assert (solved.width, solved.depth, solved.mismatch) == (8, 1, None)


def test_a_row_is_called_after_its_weights():
    assert pretrained.label({"rwkv": "a/RWKV-x060-1B6.pth"}) == "RWKV-x060-1B6"
    assert pretrained.label({"timm": "vit_tiny.augreg_in21k"}) == "vit_tiny.augreg_in21k"
    assert pretrained.label({"transformers": "org/name", "dtype": "bfloat16"}) == "name"


def test_parameters_that_nobody_trains_count_too(folder):
    model = zoo.load(folder).requires_grad_(False)
    assert size(model, tasks.build("text", length=16)).params == sum(p.numel() for p in model.parameters()) > 0


def test_its_record_holds_the_model_s_own_scores(folder, tmp_path):
    spec = row(folder, tmp_path)
    record = score_published(spec, "bought", spec.build_task())
    model, task = zoo.load(folder), tasks.build("text", length=16)
    nats = weight = 0.0
    with torch.no_grad():
        for batch in task.evaluation("test", size=3, limit=6):
            log_p = torch.log_softmax(model(Batch(inputs=batch.inputs)), -1)
            nats -= float(log_p.gather(-1, batch.targets[..., None]).sum())
            weight += batch.targets.numel()
    assert record.metrics.test["loss"] == pytest.approx(nats / weight, rel=1e-6)
    assert not record.eligibility.ranked
    assert record.external == External("zoo", str(folder), weights_digest(model))
    next(model.parameters()).data.view(-1)[0] += 1e-6
    assert record.external.weights != weights_digest(model), "it knows every weight"
    json.dumps(record.to_dict())


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{}", "name one kind of checkpoint"),
        ("{zo: x}", "did you mean 'zoo'"),
        ("{zoo: x, rwkv: y}", "name one kind of checkpoint"),
        ("{zoo: 3}", "zoo must be a path or a name, got 3"),
        ("{zoo: x, plugin: []}", "did you mean 'plugins'"),
    ],
)
def test_a_wrong_entry_is_told_at_its_line(tmp_path, entry, words):
    with pytest.raises(UserError, match=words) as told:
        load(suite(tmp_path, entry))
    assert (told.value.line, told.value.file) == (9, str(tmp_path / "bought.yaml"))


def test_weights_that_are_not_there_are_told_before_anything_runs(tmp_path):
    loaded = load(suite(tmp_path, "{zoo: ./nowhere}"))
    with pytest.raises(UserError, match=r"bought.yaml:9: .*nowhere"):
        solve([spec for spec in expand(loaded) if spec.pretrained], loaded)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (("text", {"length": 16, "tokens": "characters"}), "another tokenizer .bytes.; this task gives characters"),
        (("text", {"length": 16, "tokens": "characters", "corpus": "kjv"}), "another tokenizer .bytes."),
        (("mqar", {}), "its weights are for the role lm|not text"),
        (("pixels", {"pool": 4}), "for the role lm; this task asks for classify"),
    ],
)
def test_a_task_it_cannot_play_is_unsupported(folder, tmp_path, task, words):
    with pytest.raises(Unsupported, match=words):
        open_weights(row(folder, tmp_path), tasks.build(task[0], **task[1]))


def test_a_text_longer_than_it_reads_is_unsupported(folder, tmp_path):
    model = zoo.build("pre_ln", "lm", shape=Shape(length=8, vocab=256, outputs=256, width=8, depth=1), heads=2)
    model.tokenizer = tokenizers.Bytes()
    zoo.save(model, tmp_path / "short")
    with pytest.raises(Unsupported, match="reads 8 tokens at most; this task has 16"):
        open_weights(row(tmp_path / "short", tmp_path), tasks.build("text", length=16))
