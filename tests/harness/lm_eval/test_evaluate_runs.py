"""What a run is still to be asked, and how answers of several times stand in one record."""

import io
import json

import pytest
from rich.console import Console

from harness.board import report
from harness.errors import UserError
from harness.gates.registry import gates
from harness.lm_eval.evaluate_runs import add_answers, check_suite, evaluate_run, evaluate_suite, unanswered
from harness.plan.expand import expand
from harness.plan.sizes import resolve_size
from harness.records.record import Answer, LmEval, Metrics, empty_record
from harness.records.store import Store, read_record
from harness.suite.load import load
from harness.training.train import train

TERMS = {"limit": None, "fewshot": None, "max_length": None}


def answers(*tasks, names=None, terms=TERMS, package="0.4.13", refused=()):
    found = {task: Answer(version=1, hash="", samples=3, fewshot=0, group=None, metrics={}) for task in tasks}
    return LmEval(package, terms, tuple(names or tasks), found, {}, dict.fromkeys(refused, "why"), 2.0)


@pytest.fixture
def record(suite):
    """A run that has answered `a`, and was refused by `d`."""
    empty = empty_record(expand(load(suite()))[0], "tiny", Metrics("accuracy"), "ok")
    assert unanswered(empty, ["a", "b"], TERMS) == ["a", "b"]
    return add_answers(empty, answers("a", refused=["d"]))


def test_what_is_lacking_is_asked_and_stands_beside_what_was_answered_on_the_same_terms(record):
    assert unanswered(record, ["a", "b"], TERMS) == ["b"]
    assert unanswered(record, ["a"], {**TERMS, "limit": 5}) == ["a"], "other terms, other answers"
    both = add_answers(record, answers("b", "d", names=["group"])).lm_eval
    assert set(both.tasks) == {"a", "b", "d"}
    assert (both.names, both.refused, both.seconds) == (("a", "group"), {}, 4.0)


@pytest.mark.parametrize("changed", [{"terms": {**TERMS, "limit": 5}}, {"package": "0.5"}])
def test_answers_on_other_terms_or_by_another_version_replace_them(record, changed):
    later = add_answers(record, answers("b", **changed)).lm_eval
    assert (set(later.tasks), later.names, later.refused) == ({"b"}, ("b",), {})


SUITE = f"""
suite: asked
architectures: [gru]
tasks:
  - text: {{length: 16}}
  - text: {{length: 16, corpus: kjv, tokens: characters}}
    as: kjv
budget: {{stop: {{tokens: 512}}}}
seeds: [0]
model: {{width: 16, depth: 1}}
train: {{batch_tokens: 128}}
evaluate: {{test: 4, valid: 4, skip_gates: [{", ".join(gates())}]}}
lm_eval: {{tasks: [sums], include: tasks}}
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
    store = Store("asked", folder / "results")
    for spec in expand(load(folder / "asked.yaml", trust=True)):
        task, where = spec.build_task(), store.run_folder(spec.run_id)
        store.write(train(spec, task, resolve_size(spec, task), suite="asked", folder=where, keep=True))
    return folder


def test_a_run_s_answers_are_stored_in_its_record(folder):
    terms = {**TERMS, "limit": 2}
    evaluation, file = evaluate_run("asked/gru/text", ["sums"], folder / "results", terms, include=folder / "tasks")
    stored = read_record(file)
    assert stored.spec.task_label == "text"
    assert (stored.lm_eval.tasks, stored.lm_eval.terms) == (evaluation.tasks, terms)
    sums = stored.lm_eval.tasks["sums"]
    assert sums.samples == 2
    assert 0 <= sums.metrics["acc"].value <= 1
    assert sums.metrics["acc"].chance == pytest.approx(1 / 3)


@pytest.mark.slow
def test_a_suite_asks_every_model_and_one_that_cannot_read_keeps_no_other_from_it(folder):
    loaded, store = load(folder / "asked.yaml", trust=True), Store("asked", folder / "results")
    console = Console(file=io.StringIO(), width=200)
    assert evaluate_suite(loaded, store.records(), store, 2, console) == 2
    found = {record.spec.task_label: record.lm_eval for record in store.records()}
    assert found["text"].tasks["sums"].samples == 3, "asked on other terms before"
    assert found["kjv"].tasks == {}
    assert "(U+0031) is none of the 65 characters" in found["kjv"].refused["sums"]
    assert "kjv · gru · seed 0: cannot be asked" in console.file.getvalue()
    assert evaluate_suite(loaded, store.records(), store, 2, console) == 0, "nothing is left to ask"
    board = report.board(str(folder / "asked.yaml"), root=folder / "results")
    rows = {task.task: task.rows for task in board.tasks}
    assert rows["sums after text"][0].mean is not None
    assert "U+0031" in rows["sums after kjv"][0].reason


def test_what_cannot_be_had_is_told_at_the_suite_s_line(folder, tmp_path, monkeypatch):
    (tmp_path / "asked.yaml").write_text(SUITE.replace("include: tasks", f"include: {folder / 'tasks'}, limit: 2"))
    assert check_suite(load(tmp_path / "asked.yaml", trust=True)) == ["sums"]
    monkeypatch.delenv("ZOOBENCH_QUESTIONS", raising=False)
    (tmp_path / "asked.yaml").write_text(SUITE.replace("tasks: [sums], include: tasks", "tasks: [local_copa]"))
    with pytest.raises(UserError, match=r"asked.yaml:13: lm_eval: copa.jsonl is needed"):
        check_suite(load(tmp_path / "asked.yaml", trust=True))
