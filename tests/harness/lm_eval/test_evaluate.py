"""What a record keeps of an evaluation, against lm-eval's own report; what it leaves as it was; every error."""

import hashlib
import io
import json
import logging
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from harness.errors import UserError
from harness.lm_eval.questions import files
from harness.records.record import Answer, AnswerMetric

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.model import LM  # noqa: E402

from harness.lm_eval.evaluate import Evaluation, evaluate, show  # noqa: E402

ANSWERS = ["red", "green", "blue", "grey"]
COLOURS = {
    "task": "colours",
    "tag": "sights",
    "custom_dataset": "!function colours.dataset",
    "output_type": "multiple_choice",
    "test_split": "test",
    "fewshot_split": "test",
    "doc_to_text": "{{thing}} is",
    "doc_to_choice": ANSWERS,
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 3},
}
FIRST = {"function": "take_first"}
DATASET = """
import random
from datasets import Dataset

def dataset(**_):
    random.random()
    return {"test": Dataset.from_list([{"thing": f"thing {i}", "gold": i % 4} for i in range(40)])}
"""


class Opinions(LM):
    """Likes some answers better than others, for no reason but their bytes; sampling is up to the generators."""

    max_length = 77

    def loglikelihood(self, requests):
        return [(-float(hashlib.sha256("".join(r.args).encode()).digest()[0]), False) for r in requests]

    def loglikelihood_rolling(self, requests):
        return [-float(len(r.args[0])) for r in requests]

    def generate_until(self, requests):
        return [str(torch.rand(1).item() + np.random.rand() + random.random()) for _ in requests]


def write(folder, **changes):
    """Write the task `colours` with some keys replaced."""
    text = yaml.safe_dump({**COLOURS, **changes}).replace("'!function colours.dataset'", "!function colours.dataset")
    (folder / f"{changes.get('task', 'colours')}.yaml").write_text(text)


@pytest.fixture
def folder(tmp_path):
    """A folder of the user's with tasks: `colours`, the same asked to generate, a group that aggregates."""
    (tmp_path / "colours.py").write_text(DATASET)
    write(tmp_path)
    write(
        tmp_path,
        task="said",
        output_type="generate_until",
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        generation_kwargs={"until": ["."], "max_gen_toks": 8},
        filter_list=[
            {"name": "first", "filter": [FIRST]},
            {"name": "short", "filter": [{"function": "regex", "regex_pattern": "(.)"}, FIRST]},
        ],
    )
    mean = {"metric": "acc", "aggregation": "mean", "weight_by_size": True}
    looks = {"group": "looks", "task": ["colours"], "aggregate_metric_list": [mean], "metadata": {"version": 1}}
    (tmp_path / "looks.yaml").write_text(yaml.safe_dump(looks))
    return tmp_path


@pytest.fixture
def own_only(monkeypatch):
    """lm_eval's own 14,000 tasks take seconds to list: without them."""
    from lm_eval import tasks

    plain = tasks.TaskManager
    monkeypatch.setattr(tasks, "TaskManager", lambda **options: plain(**{**options, "include_defaults": False}))
    monkeypatch.setattr(tasks.TaskManager, "load", plain.load, raising=False)


@pytest.fixture
def stored(folder, own_only):
    return evaluate(Opinions(), ["colours"], include=folder)


def lines(evaluation):
    """The table of an evaluation."""
    console = Console(file=io.StringIO(), width=100)
    show(evaluation, console)
    return console.file.getvalue().splitlines()


def test_what_is_stored_is_what_lm_eval_reports(stored, folder, tmp_path):
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=[folder], include_defaults=False).load(["colours"])
    loaded["tasks"]["colours"].set_config("num_fewshot", 0)
    results = lm_eval.evaluate(lm=Opinions(), task_dict=loaded, bootstrap_iters=10)
    EvaluationTracker(output_path=str(tmp_path / "out.json")).save_results_aggregated(results, results["samples"])
    (written,) = tmp_path.glob("out*.json")
    report = json.loads(written.read_text())
    acc = report["results"]["colours"]
    metric = AnswerMetric(acc["acc,none"], acc["acc_stderr,none"], True, 0.25)
    answer = Answer(3, report["task_hashes"]["colours"], 40, 0, None, {"acc": metric})
    seconds = stored.seconds
    assert seconds > 0
    asked = {"package": lm_eval.__version__, "seed": 0, "limit": None, "max_length": 77}
    assert stored == Evaluation(**asked, seconds=seconds, tasks={"colours": answer}, groups={})
    assert Evaluation.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored


def test_the_hash_is_of_what_was_asked(stored, folder):
    fewer = evaluate(Opinions(), ["colours"], include=folder, limit=0.25).tasks["colours"]
    shown = evaluate(Opinions(), ["colours"], include=folder, fewshot=1).tasks["colours"]
    assert (fewer.samples, shown.fewshot) == (10, 1)
    (folder / "colours.py").write_text(DATASET.replace("i % 4", "(i + 1) % 4"))
    other = evaluate(Opinions(), ["colours"], include=folder).tasks["colours"]
    assert len({answer.hash for answer in (stored.tasks["colours"], fewer, shown, other)}) == 4


def test_groups_tags_and_doubles_expand_to_tasks_and_filters_keep_their_names(folder, own_only):
    found = evaluate(Opinions(), ["looks", "colours", "looks", "sights"], include=folder, limit=8)
    assert {name: answer.group for name, answer in found.tasks.items()} == {"colours": "looks", "said": "sights"}
    looks = found.groups["looks"]
    assert looks["tasks"] == ["colours"]
    assert looks["metrics"]["acc"]["value"] == found.tasks["colours"].metrics["acc"].value
    assert all(any(task in line and "acc" in line for line in lines(found)) for task in ("looks", "colours"))
    filters = {name: metric.to_dict()["filter"] for name, metric in found.tasks["said"].metrics.items()}
    assert filters == {"exact_match,first": "first", "exact_match,short": "short"}


def test_what_lm_eval_has_no_number_for_is_none(monkeypatch, own_only):
    pytest.importorskip("gensim")
    metrics = evaluate(Opinions(), ["zoo_bits"], limit=3).tasks["zoo_bits"].metrics
    assert {found.stderr for found in metrics.values()} == {None}
    assert metrics["byte_perplexity"].value == pytest.approx(2.718, rel=0.01)


def test_a_run_of_any_seed_is_repeatable_and_leaves_everything_as_it_was(folder, own_only, monkeypatch, capfd):
    from lm_eval.api.task import tqdm

    monkeypatch.delenv(files.VARIABLE, raising=False)
    (folder / "lambada_openai.jsonl").write_text('{"context": "a b", "continuation": "c"}\n' * 5)
    answers = []

    class Keeps(Opinions):
        def generate_until(self, requests):
            answers.append(super().generate_until(requests))
            return answers[-1]

    def state():
        logger, tasks = logging.getLogger("lm_eval"), logging.getLogger("lm_eval.api.task")
        return dict(os.environ), logger.level, vars(tqdm).get("__init__"), vars(tqdm).get("update"), tasks.filters[:]

    before = state()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    for seed in (0, 0, 1):
        names = ["said", "local_lambada_openai"]
        stored = evaluate(Keeps(), names, include=folder, data=folder, seed=seed, limit=4)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert answers[0] == answers[1] != answers[2]
    assert stored.seed == 1
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_a_person_is_told(folder, own_only, capsys):
    from tqdm import tqdm

    class Counts(Opinions):
        def loglikelihood(self, requests):
            with tqdm(total=len(requests), desc="answers", disable=False) as bar:
                bar.update(3)
                bar.update(1)
            return super().loglikelihood(requests)

    evaluate(Counts(), ["looks"], include=folder, limit=2, report=print)
    out, drawn = capsys.readouterr()
    assert out.splitlines() == [
        "reading the list of lm-eval's tasks",
        "looks: reading the questions",
        "asking colours",
        "answers: 3 of 8",
    ]
    assert not drawn


def test_the_table(stored):
    (line,) = [line for line in lines(stored) if "colours" in line]
    acc = stored.tasks["colours"].metrics["acc"]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == ["colours", "acc", f"{acc.value:.4g} ± {acc.stderr:.4g}", "0.25", "40"]


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        ([], {}, "name at least one task"),
        ("zoo", {}, "name at least one task"),
        (["zoo"], {"limit": 0}, "limit must be"),
        (["zoo"], {"limit": 2.5}, "limit must be"),
        (["zoo"], {"limit": -3}, "limit must be"),
        (["zoo"], {"fewshot": -1}, "fewshot must be 0 or more"),
        (["zoo_copy"], {"fewshot": 100}, "zoo_copy has 100 documents, too few for 100 examples"),
        (["zoo_recal"], {}, r"unknown lm-eval task 'zoo_recal'; did you mean 'zoo_recall'\?; zoobench ls questions"),
        (["zoo_copy"], {"include": Path("/nowhere")}, "/nowhere is no folder"),
        (["xyzzyxyzzy"], {}, "unknown lm-eval task 'xyzzyxyzzy'; zoobench ls questions"),
    ],
)
def test_arguments_that_cannot_be(names, options, says, own_only):
    with pytest.raises(UserError, match=says) as caught:
        evaluate(Opinions(), names, **options)
    assert "\n" not in str(caught.value)


def test_the_hub_cannot_be_reached(folder, own_only, monkeypatch):
    """One line: the task, why, and the task of ours that asks the same."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("arc_easy", "boolq"):
        write(folder, task=name, custom_dataset=None, dataset_path="zoobench-tests/absent")
    with pytest.raises(
        UserError, match=r"'arc_easy' cannot be loaded \(.*absent.*\); hf:arc_easy asks the hub; local_arc_easy"
    ) as caught:
        evaluate(Opinions(), ["arc_easy"], include=folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"'boolq' cannot be loaded \(.*\); hf:boolq asks the hub; some need no hub"):
        evaluate(Opinions(), ["boolq"], include=folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"unsafe_code": True}, "'colours' runs the code that a model writes"),
        ({"doc_to_image": ["thing"]}, "'colours' asks about images or sounds"),
    ],
)
def test_what_the_models_here_cannot_do(folder, own_only, change, says):
    write(folder, **change)
    with pytest.raises(UserError, match=says):
        evaluate(Opinions(), ["colours"], include=folder)


def test_a_model_that_cannot_be_asked(folder, own_only):
    class Mute(Opinions):
        def loglikelihood(self, requests):
            raise ValueError("'é' has no token")

    class Wrong(Opinions):
        def loglikelihood(self, requests):
            return [(-2e3, False) for _ in requests]

    with pytest.raises(UserError, match="the model cannot be asked: 'é' has no token"):
        evaluate(Mute(), ["colours"], include=folder)
    (folder / "lambada_openai.jsonl").write_text('{"context": "a b", "continuation": "c"}\n' * 2)
    with pytest.raises(UserError, match="the model cannot be asked: math range error"):
        evaluate(Wrong(), ["local_lambada_openai"], data=folder)


def test_without_lm_eval(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"lm-eval, .*pip install -U 'zoobench\[lm-eval\]'"):
        evaluate(object(), ["zoo"])


def test_lm_evals_own_tasks_are_known(monkeypatch):
    """Of their 14,000 files, which take seconds to list, those in one folder."""
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(Path(lm_eval.__file__).parent / "tasks" / "arc" / "x.py"))
    with pytest.raises(UserError, match="unknown lm-eval task 'arc_eesy'; did you mean 'arc_easy'"):
        evaluate(Opinions(), ["arc_eesy"])
