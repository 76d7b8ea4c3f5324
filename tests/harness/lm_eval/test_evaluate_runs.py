"""What a run is still to be asked, and how answers of several times stand in one record."""

import io
import json

import pytest
from rich.console import Console

from harness import board
from harness.errors import UserError
from harness.lm_eval.answer import ask, ask_one, check, lacking, store
from harness.plan.expand import expand
from harness.plan.sizes import resolve_size
from harness.records.store import Store
from harness.suite.load import load
from harness.training.train import train

TERMS = {"limit": None, "fewshot": None, "max_length": None}


def found(*names, package="0.4.13"):
    return {"package": package, "seconds": 2.0, "tasks": {name: {"samples": 3} for name in names}, "groups": {}}


def test_only_what_is_lacking_is_asked():
    record = store({"run_id": "r"}, ["a"], TERMS, found("a"))
    assert lacking({"run_id": "r"}, ["a", "b"], TERMS) == ["a", "b"]
    assert lacking(record, ["a", "b"], TERMS) == ["b"]
    assert lacking(record, ["a"], {**TERMS, "limit": 5}) == ["a"], "other terms, other answers"


def test_answers_on_the_same_terms_stand_together():
    record = store({"run_id": "r"}, ["a"], TERMS, found("a"))
    both = store(record, ["group"], TERMS, found("b", "c"))["lm_eval"]
    assert set(both["tasks"]) == {"a", "b", "c"}
    assert (both["names"], both["seconds"]) == (["a", "group"], 4.0)


def test_answers_on_other_terms_or_by_another_version_replace_them():
    record = store({"run_id": "r"}, ["a"], TERMS, found("a"))
    for later in (
        store(record, ["b"], {**TERMS, "limit": 5}, found("b")),
        store(record, ["b"], TERMS, found("b", package="0.5")),
    ):
        assert set(later["lm_eval"]["tasks"]) == {"b"}
        assert later["lm_eval"]["names"] == ["b"]


SUITE = """
suite: asked
architectures: [gru]
tasks:
  - text: {length: 16}
  - text: {length: 16, corpus: kjv, tokens: characters}
    as: kjv
budget: {stop: {tokens: 512}}
seeds: [0]
model: {width: 16, depth: 1}
train: {batch_tokens: 128}
evaluate: {test: 4, valid: 4}
lm_eval: {tasks: [sums], include: tasks}
"""
TASK = """
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: ["2", "3", "4"]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A suite, its two runs, and the task it asks."""
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("asked")
    (folder / "asked.yaml").write_text(SUITE)
    (folder / "tasks").mkdir()
    rows = [{"question": f"1 + {n} =", "answer": n - 1} for n in (1, 2, 3)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks" / "sums.yaml").write_text(TASK.replace("FILE", str(folder / "sums.jsonl")))
    results = Store("asked", folder / "results")
    for spec in expand(load(folder / "asked.yaml")):
        task = spec.build_task()
        where = results.run_folder(spec.run_id(task.fingerprint))
        results.write(train(spec, task, resolve_size(spec, task), suite="asked", folder=where, keep=True))
    return folder


def by_task(folder):
    return {record["spec"]["task_label"]: record for record in Store("asked", folder / "results").records()}


def test_a_run_s_answers_are_stored_in_its_record(folder):
    found, file = ask_one(
        "asked/gru/text", ["sums"], folder / "results", {**TERMS, "limit": 2}, include=folder / "tasks"
    )
    record = json.loads(file.read_text())
    assert record == by_task(folder)["text"]
    assert record["lm_eval"]["tasks"] == found["tasks"]
    assert record["lm_eval"]["tasks"]["sums"]["samples"] == 2
    assert 0 <= found["tasks"]["sums"]["metrics"]["acc"]["value"] <= 1
    assert found["tasks"]["sums"]["metrics"]["acc"]["chance"] == pytest.approx(1 / 3)


@pytest.mark.slow
def test_a_suite_asks_every_model_and_one_that_cannot_read_keeps_no_other_from_it(folder):
    loaded, results = load(folder / "asked.yaml"), Store("asked", folder / "results")
    console = Console(file=io.StringIO(), width=200)
    assert ask(loaded, results.records(), results, 2, console) == 2
    said, found = console.file.getvalue(), by_task(folder)
    assert found["text"]["lm_eval"]["tasks"]["sums"]["samples"] == 3, "asked on other terms before"
    assert found["kjv"]["lm_eval"]["tasks"] == {}
    assert "(U+0031) is none of the 65 characters" in found["kjv"]["lm_eval"]["refused"]["sums"]
    assert "kjv · gru · seed 0 cannot be asked" in said
    assert ask(loaded, results.records(), results, 2, console) == 0, "nothing is left to ask"
    rows = {task.task: task.rows for task in board.make("asked", results.records(), []).tasks}
    assert rows["sums after text"][0].mean is not None
    assert "U+0031" in rows["sums after kjv"][0].reason


def test_what_cannot_be_had_is_told_at_the_suite_s_line(folder, tmp_path, monkeypatch):
    (tmp_path / "asked.yaml").write_text(SUITE.replace("include: tasks", f"include: {folder / 'tasks'}, limit: 2"))
    assert check(load(tmp_path / "asked.yaml")) == ["sums"]
    monkeypatch.delenv("ZOOBENCH_QUESTIONS", raising=False)
    (tmp_path / "asked.yaml").write_text(SUITE.replace("tasks: [sums], include: tasks", "tasks: [local_copa]"))
    with pytest.raises(UserError, match=r"asked.yaml:13: lm_eval: copa.jsonl is needed"):
        check(load(tmp_path / "asked.yaml"))
