"""What is asked, against lm-eval's own tasks of these names; who knows the answers, who guesses; damaged files."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tasks
import zoo
from harness.errors import UserError
from harness.lm_eval import questions
from harness.lm_eval.questions import files, generated
from tasks import corpora
from zoo.contract import Batch

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from harness.lm_eval.adapter import Zoobench  # noqa: E402
from harness.lm_eval.evaluate import evaluate  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data" / "lm_eval"
OURS = {row["name"]: row for row in questions.known()}
CHOICES = [name for name, row in OURS.items() if row["chance"]]

ROWS = {
    "lambada_openai": [
        {"context": f'"I saw a {animal}," said Ann. Ben had not seen the', "continuation": animal}
        for animal in ("cat", "dog", "heron", "[owl]", "7")
    ],
    "arc_easy": [
        {"query": f"Question: What comes after {n}?", "choices": [str(n + k) for k in range(4)], "gold": 1}
        for n in range(6)
    ],
    "piqa": [
        {"query": f"Question: How do I dry a {what}?\n", "choices": ["with a tap.", "with a towel."], "gold": 1}
        for what in ("cup", "plate", "spoon", "dog")
    ],
    "copa": [{"query": "The sun rose, therefore", "choices": ["it got dark.", "it got light."], "gold": 1}] * 3,
    "winogrande": [
        {"context_options": ["Ann asked Ben, so Ann", "Ann asked Ben, so Ben"], "continuation": "replied.", "gold": 1}
    ],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's folder, with a few rows of each file."""
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv(files.VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def wiki():
    try:
        return generated.held_out()
    except tasks.DataError as error:
        pytest.skip(str(error))


class Knows(LM):
    """Finds the texts it was told of certain, all others hardly possible, and keeps what it was asked."""

    def __init__(self, texts=(), likelihood=lambda context, text: -99.0):
        super().__init__()
        self.texts, self.likelihood, self.asked = set(texts), likelihood, []

    def loglikelihood(self, requests):
        self.asked += [request.args for request in requests]
        known = [context + text in self.texts for context, text in self.asked[-len(requests) :]]
        pairs = zip(known, self.asked[-len(requests) :], strict=True)
        return [(0.0, True) if found else (self.likelihood(*pair), False) for found, pair in pairs]

    def loglikelihood_rolling(self, requests):
        return [self.likelihood("", request.args[0]) for request in requests]

    def generate_until(self, requests):
        """The one text it was told of that begins like this."""
        begins = [request.args[0] for request in requests]
        return [next((text[len(begin) :] for text in self.texts if text.startswith(begin)), "") for begin in begins]


def task(name):
    return TaskManager(include_path=[questions.HOME], include_defaults=False).load([name])["tasks"][name]


TRUTH = {
    "local_winogrande": lambda row: f"{row['context_options'][row['gold']]} {row['continuation']}",
    "local_lambada_openai": lambda row: f"{row['context']} {row['continuation']}",
    "zoo_last_word": lambda row: f"{row['context']} {row['word']}",
    "zoo_copy": lambda row: f"{row['context']} {row['words']}",
    "local_arc_easy": lambda row: f"{row['query'].strip()}\nAnswer: {row['choices'][row['gold']]}",
    "local_piqa": lambda row: f"{row['query'].strip()}\nAnswer: {row['choices'][row['gold']]}",
    "local_copa": lambda row: f"{row['query']} {row['choices'][row['gold']]}",
    "zoo_choice": lambda row: f"{row['context']} {row['choices'][row['gold']]}",
    "zoo_recall": lambda row: f"{row['context']} {row['choices'][row['gold']]}",
}
"""Each question of a task with its right answer, as one text."""


def truths(name):
    return {TRUTH[name](row) for row in task(name).eval_docs}


GOLDEN = {
    "zoo_bits": "cabceb0645327ca6",
    "zoo_last_word": "861ab211f73f4c4a",
    "zoo_choice": "b82c56d6f0e048e7",
    "zoo_recall": "9bb3dd6ce3c8466d",
    "zoo_copy": "daefbc17ce053f60",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_the_project_makes_is_the_same_everywhere(name, wiki):
    rows = list(task(name).eval_docs)
    assert len(rows) == OURS[name]["documents"]
    assert hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16] == GOLDEN[name]


def test_passages_cover_the_held_out_text_and_stand_behind_line_breaks(wiki):
    content = corpora.load(corpora.get("wikipedia_xml"))
    test = content[len(content) * 95 // 100 :].decode(errors="ignore")
    passages = sorted((test.index(row["passage"]), len(row["passage"])) for row in task("zoo_bits").eval_docs)
    assert all(test[place - 1] == "\n" for place, _ in passages)
    assert passages[0][0] < 2000
    assert sum(size for _, size in passages) > 0.98 * len(test)
    assert [place + size for place, size in passages][:-1] == [place for place, _ in passages][1:], "nothing twice"


def test_choices_are_how_held_out_paragraphs_go_on(wiki):
    paragraphs = generated.paragraphs()
    for row in task("zoo_choice").eval_docs:
        texts = [f"{row['context']} {choice}" for choice in row["choices"]]
        stands = [any(text in paragraph for paragraph in paragraphs) for text in texts]
        assert stands == [place == row["gold"] for place in range(4)]
        assert all(any(choice in paragraph for paragraph in paragraphs) for choice in row["choices"])
        assert len(set(row["choices"])) == 4
        assert np.ptp([len(choice) for choice in row["choices"]]) <= 8


def test_last_words_have_stood_in_their_passage(wiki):
    for row in task("zoo_last_word").eval_docs:
        assert row["word"] in row["context"]
        assert any(f"{row['context']} {row['word']}" in paragraph for paragraph in generated.paragraphs())


@pytest.mark.parametrize("name", ["zoo_choice", "zoo_recall"])
def test_the_place_of_the_true_choice_tells_nothing(name, wiki):
    assert np.ptp(np.bincount(task(name).eval_docs["gold"], minlength=4)) <= 1


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"zoo_bits"}))
def test_who_knows_the_answers_scores_one_and_a_wrong_gold_is_noticed(name, folder, wiki):
    known = sorted(truths(name))
    metrics = evaluate(Knows(known), [name]).tasks[name].metrics
    assert {found.value for found in metrics.values()} == {1.0}, "perplexity, too"
    metric = "exact_match" if name == "zoo_copy" else "acc"
    assert evaluate(Knows(known[1:]), [name]).tasks[name].metrics[metric].value < 1.0


def test_who_knows_nothing_scores_as_chance(wiki, monkeypatch):
    """Within four binomial standard errors, on every task with choices whose data are here."""
    monkeypatch.setenv(files.VARIABLE, str(SHARED))
    names = [name for name in CHOICES if name.startswith("zoo_") or SHARED.is_dir()]
    lm = Knows(likelihood=lambda _, text: -len(text.encode()) * math.log(256))
    stored = evaluate(lm, names, limit=200).tasks
    for name in names:
        chance, n = OURS[name]["chance"], stored[name].samples
        for metric, found in stored[name].metrics.items():
            assert found.chance == chance
            assert abs(found.value - chance) <= 4 * math.sqrt(chance * (1 - chance) / n), (name, metric)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no question files at {SHARED}")
@pytest.mark.parametrize("name", sorted(files.KEYS))
def test_real_files_are_read_whole(name, monkeypatch):
    monkeypatch.setenv(files.VARIABLE, str(SHARED))
    rows = files.read(files.find(name), files.KEYS[name])
    lines = [json.loads(line) for line in (SHARED / f"{name}.jsonl").read_text().splitlines()]
    assert [{key: line[key] for key in row} for row, line in zip(rows, lines, strict=True)] == rows


def test_bits_per_byte_are_those_of_the_task_text(wiki):
    """The same windows given to the model as the task `text` gives them, and scored by it, give the same number."""
    content = corpora.load(corpora.get("wikipedia_xml"))
    text = tasks.build("text", length=64)
    torch.manual_seed(0)
    model = zoo.build("pre_ln", shape=replace(text.shape, width=16), depth=1, heads=1)
    model.tokenizer = text.tokenizer
    lm = Zoobench(model=model, device="cpu")
    stored = evaluate(lm, ["zoo_bits"], limit=2).tasks["zoo_bits"].metrics["bits_per_byte"]
    total = weight = 0.0
    for row in list(task("zoo_bits").eval_docs)[:2]:
        begin, size = content.index(row["passage"].encode()), len(row["passage"].encode())
        for at in range(0, size, 64):
            left = min(64, size - at)  # the last window has more context, and counts what is left
            end = begin + at + left
            window = torch.tensor(list(content[end - 65 : end]))[None]
            counted = torch.arange(64)[None] >= 64 - left
            batch = Batch(inputs=window[:, :-1], targets=window[:, 1:], counted=counted)
            with torch.no_grad():
                bits, byte = text.totals(lm.model(batch), batch)["bits_per_byte"]
            total, weight = total + bits, weight + byte
    assert stored.value == pytest.approx(total / weight, rel=1e-5)
    assert not stored.higher_is_better


def _arc_easy(row):
    choices = {"text": row["choices"], "label": list("ABCD")}
    return {"question": row["query"][len("Question: ") :], "choices": choices, "answerKey": "ABCD"[row["gold"]]}


def _piqa(row):
    goal, (first, second) = row["query"].removeprefix("Question: ").strip(), row["choices"]
    return {"goal": goal, "sol1": first, "sol2": second, "label": row["gold"]}


def _copa(row):
    first, second = (choice.capitalize() for choice in row["choices"])
    premise = row["query"].removesuffix(", therefore") + ",."
    return {"premise": premise, "question": "effect", "choice1": first, "choice2": second, "label": row["gold"]}


def _winogrande(row):
    first, second = (option.split()[-1] for option in row["context_options"])
    sentence = f"Ann asked Ben, so _ {row['continuation']}"
    return {"sentence": sentence, "option1": first, "option2": second, "answer": str(row["gold"] + 1)}


THEIRS = {
    "lambada_openai": (
        *("lambada/lambada_openai.yaml", "test"),
        lambda row: {"text": f"{row['context']} {row['continuation']}"},
    ),
    "arc_easy": ("arc/arc_easy.yaml", "test", _arc_easy),
    "piqa": ("piqa/piqa.yaml", "validation", _piqa),
    "copa": ("super_glue/copa/default.yaml", "validation", _copa),
    "winogrande": ("winogrande/default.yaml", "validation", _winogrande),
}
"""lm_eval's own file for a task, its split, and a row of ours in the form its data set has them."""


def theirs(name):
    """lm_eval's own task of this name over our rows."""
    from datasets import Dataset
    from lm_eval.tasks._yaml_loader import load_yaml

    path, split, convert = THEIRS[name]
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / path)
    config = {key: value for key, value in config.items() if key not in ("tag", "training_split")}
    docs = {split: Dataset.from_list([convert(row) for row in ROWS[name]])}
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: docs, "fewshot_split": split})


@pytest.mark.parametrize(("name", "fewshot"), [*((name, 0) for name in sorted(ROWS)), ("arc_easy", 2)])
def test_prompts_answers_and_metrics_are_those_of_lm_evals_own_tasks(name, fewshot, folder):
    asked = []
    for one in (task(f"local_{name}"), theirs(name)):
        one.set_config(key="num_fewshot", value=fewshot)
        one.set_fewshot_seed(1)
        one.build_all_requests()
        asked.append([instance.args for instance in one.instances])
    if name == "copa":
        asked[1] = [(context, answer.replace("  ", " ")) for context, answer in asked[1]]
    assert asked[0] == asked[1]
    ours, own = task(f"local_{name}"), theirs(name)
    assert ours.higher_is_better() == own.higher_is_better()
    assert ours.aggregation() == own.aggregation()
    assert ours.OUTPUT_TYPE == own.OUTPUT_TYPE


@pytest.mark.parametrize("name", ["local_arc_easy", "zoo_recall", "zoo_last_word"])
def test_examples_never_are_the_question_itself(name, folder, wiki):
    lm = Knows()
    evaluate(lm, [name], fewshot=2, limit=5)
    shown = [context.split("\n\n") for context, _ in lm.asked]
    assert all(len(parts) == 3 for parts in shown)
    assert not any(example.startswith(asked) for *examples, asked in shown for example in examples)


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("arc_easy", "{", "not JSON"),
        ("arc_easy", "[1]", "not a JSON object"),
        ("arc_easy", {"choices": ["a", "b"], "gold": 0}, "'query' is missing; the row has 'choices', 'gold'"),
        ("arc_easy", {"query": "a", "choices": ["a", "b"], "gold": 2}, "whole number from 0 to 1, got 2"),
        ("piqa", {"query": "a", "choices": ["a", "b"], "gold": True}, "whole number from 0 to 1, got True"),
        ("copa", {"query": "a", "choices": [], "gold": 0}, "'choices' must be a list of two texts or more"),
        ("copa", {"query": "a", "choices": ["a", " "], "gold": 0}, r"'choices\[1\]' must be a text that is not empty"),
        ("copa", {"query": 3, "choices": ["a", "b"], "gold": 0}, "'query' must be a text"),
        ("winogrande", {"context_options": "ab", "continuation": "c", "gold": 0}, "'context_options' must be a list"),
        ("lambada_openai", {"context": "a", "continuation": ""}, "'continuation' must be a text that is not empty"),
    ],
)
def test_a_damaged_row_is_named(name, line, says, folder):
    path = folder / f"{name}.jsonl"
    path.write_text(path.read_text() + "\n" + (line if isinstance(line, str) else json.dumps(line)) + "\n")
    where = f"{path}:{len(ROWS[name]) + 2}: "
    with pytest.raises(UserError, match=says) as caught:
        evaluate(Knows(), [f"local_{name}"])
    assert str(caught.value).startswith(where)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(folder, monkeypatch):
    (folder / "copa.jsonl").write_bytes(b'{"query": "\xff"}\n')
    with pytest.raises(UserError, match=r"copa.jsonl:1: .*utf-8"):
        files.read(files.find("copa"), files.KEYS["copa"])
    (folder / "copa.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"copa.jsonl: holds no questions"):
        files.read(files.find("copa"), files.KEYS["copa"])
    (folder / "copa.jsonl").unlink()
    with pytest.raises(UserError, match=r"holds no copa.jsonl; such files are in https://"):
        files.find("copa")
    (folder / "common").mkdir()
    (folder / "common" / "copa.jsonl").write_text(json.dumps(ROWS["copa"][0]))
    assert files.read(files.find("copa"), files.KEYS["copa"]) == [ROWS["copa"][0]]
    monkeypatch.setenv(files.VARIABLE, str(folder / "none"))
    with pytest.raises(UserError, match="is no folder"):
        files.find("copa")
    monkeypatch.delenv(files.VARIABLE)
    with pytest.raises(UserError, match=r"copa.jsonl is needed: .*--data FOLDER or ZOOBENCH_QUESTIONS"):
        files.find("copa")


def test_what_is_known_is_what_the_files_say():
    assert OURS.keys() == {path.stem for path in questions.HOME.glob("*.yaml")} - {"zoo", "local"}
    readme = (questions.HOME / "README.md").read_text(encoding="utf-8")
    for name, row in OURS.items():
        line = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
        assert row["about"].endswith(".")
        assert row["group"] == name.split("_")[0]
        assert all(metric in line for metric in row["metrics"])
        assert row["chance"] is None or f"| {row['chance']:.0%} |" in line
        assert str(row["documents"] or row["file"]) in line
