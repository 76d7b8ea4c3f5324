"""Run ids: equal for equal work wherever and however the suite is written, different as soon as anything matters."""

import json

import pytest
import yaml

from harness.plan.expand import expand
from harness.plan.trials import trials
from harness.records.meters import StopRule
from harness.records.spec import RunSpec
from harness.suite.load import load

MQAR, TEXT = {"mqar": {"length": 8, "pairs": 2, "vocab": 16}}, {"text": {"path": "a.txt", "length": 8}}
SUITE = {
    "suite": "tiny",
    "architectures": [{"pre_ln": {"heads": 2, "depth": 1}}, "lstm"],
    "tasks": [MQAR, TEXT],
    "budget": {"match": {"params": "2k"}, "stop": {"tokens": 64}},
    "seeds": [0, 1, 2],
    "train": {"batch_tokens": 32, "lr": 1e-3},
    "evaluate": {"valid": 4, "test": 4},
}


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Load a suite made from SUITE with keys replaced, from its own folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 4)

    def make(folder="one", *, data=None, **changes):
        path = tmp_path / folder / "suite.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(data or {**SUITE, **changes}, sort_keys=False))
        return load(path, trust=True)

    return make


def ids(loaded):
    return {spec.run_id for spec in expand(loaded)}


def test_a_suite_expands_to_every_architecture_task_and_seed(loaded):
    specs = expand(loaded())
    assert len(specs) == len(ids(loaded())) == 2 * 2 * 3
    assert {(s.architecture, s.task, s.seed) for s in specs} == {
        (a, t, s) for a in ("pre_ln", "lstm") for t in ("mqar", "text") for s in (0, 1, 2)
    }
    assert all(spec.kind == "final" and spec.role == "lm" for spec in specs)


def backwards(data):
    return {k: backwards(v) for k, v in reversed(data.items())} if isinstance(data, dict) else data


TURNED = {
    **SUITE,
    "architectures": ["lstm", {"pre_ln": {"depth": 1, "heads": 2}}],
    "tasks": [TEXT, MQAR],
    "seeds": [2, 0, 1],
}
WRITTEN_OTHERWISE = {
    "about": "other words",
    "budget": {"match": {"params": 2000, "count": "non_embedding"}, "stop": {"tokens": "0.064k"}},
    "train": {"lr": "1e-3", "batch_tokens": 32},
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": backwards(TURNED)},
        WRITTEN_OTHERWISE,
        {"suite": "other", "limits": {"timeout": "1h"}},
        {"reference": "lstm", "targets": {"mqar": "9e-1"}},
    ],
    ids=["another place", "another order", "other words", "another name", "a reference"],
)
def test_what_does_not_change_the_work_does_not_change_the_ids(loaded, changes):
    assert ids(loaded()) == ids(loaded("two", **changes))


def budget(meter, limit, **match):
    return {"budget": {"match": match, "stop": {meter: limit}}}


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [3, 4, 5]},
        {"architectures": [{"pre_ln": {"heads": 1, "depth": 1}}, {"lstm": {"depth": 1}}]},
        *({"train": {**SUITE["train"], **own}} for own in ({"lr": 2e-3}, {"batch_tokens": 64}, {"precision": "fp32"})),
        budget("tokens", 65, params="2k"),
        budget("steps", 64, params="2k"),
        budget("tokens", 64, params="3k"),
        budget("tokens", 64, params="2k", count="total"),
        {"evaluate": {"valid": 4, "test": 5}},
        {"model": {"dropout": 0.1}},
        {"tasks": [{"mqar": {**MQAR["mqar"], "pairs": 1}}, {"text": {**TEXT["text"], "length": 9}}]},
    ],
)
def test_anything_that_matters_changes_every_id(loaded, change):
    assert not ids(loaded()) & ids(loaded("two", **change))


def test_one_byte_of_data_changes_the_ids_of_its_task_alone(loaded, tmp_path):
    before = ids(loaded())
    (tmp_path / "b.txt").write_bytes((tmp_path / "a.txt").read_bytes().replace(b"\x05", b"\x04", 1))
    after = ids(loaded("two", tasks=[MQAR, {"text": {"path": "b.txt", "length": 8}}]))
    assert len(before & after) == 6


def test_the_content_of_a_plugin_counts_not_its_place(loaded, tmp_path):
    def first(folder, content):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{folder}.py").write_text(content)
        return expand(loaded(folder, plugins=[f"{folder}.py"]))[0]

    spec = first("one", "x = 1\n")
    assert spec.run_id == first("one", "x = 1\n").run_id != first("one", "x = 2\n").run_id
    assert spec.run_id != spec.replace(fingerprint="other data").run_id


def test_a_plugin_changes_only_the_rows_that_name_what_it_registers(loaded, tmp_path):
    code = (
        "from zoo import architectures, register\n\n@register()\ndef {0}():\n    return architectures.recipe('lstm')\n"
    )
    for folder, name in (("two", "mine_a"), ("two", "mine_b"), ("three", "mute")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.py").write_text(code.format(name) if folder == "two" else "x = 1\n")
    rows = ["lstm", "mine_a", {"mine_b": {}, "as": "second"}]
    specs = expand(loaded("two", plugins=["mine_a.py", "mine_b.py"], architectures=rows, tasks=[MQAR]))
    named = {spec.architecture: [name for name, _ in spec.plugins] for spec in specs}
    assert named == {"lstm": [], "mine_a": ["mine_a.py"], "mine_b": ["mine_b.py"]}
    assert ids(loaded("one", architectures=["lstm"], tasks=[MQAR])) < {spec.run_id for spec in specs}
    mute = expand(loaded("three", plugins=["mute.py"], architectures=["lstm"], tasks=[MQAR]))
    assert {name for spec in mute for name, _ in spec.plugins} == {"mute.py"}


def test_each_task_is_played_by_the_rows_that_it_names(loaded):
    suite = loaded(tasks=[{**MQAR, "only": ["pre_ln", "lstm"]}, {**TEXT, "only": ["lstm"]}], tuning={"lr": [1e-3]})
    rows = {("pre_ln", "mqar"), ("lstm", "mqar"), ("lstm", "text")}
    assert {spec.cell[:2] for spec in expand(suite)} == {spec.cell[:2] for spec in trials(suite)} == rows
    assert len(expand(suite)) == 3 * len(rows)


def test_a_task_overrides_stop_match_train_and_model_for_itself(loaded):
    own = {"stop": {"steps": 3}, "match": {"params": "3k"}, "train": {"lr": "1e-2"}, "model": {"depth": 2}}
    suite = loaded(tasks=[{**MQAR, **own}, TEXT])
    recall, text = (next(s for s in expand(suite) if s.cell[:2] == ("lstm", task)) for task in ("mqar", "text"))
    assert (recall.stop, recall.match.target, recall.options) == (StopRule("steps", 3), 3000, {"depth": 2})
    assert (recall.train.lr, recall.train.batch_tokens) == (1e-2, 32)
    assert (text.stop, text.match.target, text.options, text.train.lr) == (StopRule("tokens", 64), 2000, {}, 1e-3)


def test_an_architecture_has_the_last_word_on_options_and_a_given_width_matches_nothing(loaded):
    suite = loaded(model={"depth": 3}, architectures=[{"pre_ln": {"depth": 1, "width": 8}}, "lstm"])
    first, second = expand(suite)[:2]
    assert (first.options, first.match) == ({"depth": 1, "width": 8}, None)
    assert (second.options, second.match.target) == ({"depth": 3}, 2000)
    assert all(spec.match is None for spec in expand(loaded(budget={"match": "none", "stop": {"steps": 1}})))


def test_a_spec_survives_its_record(loaded):
    sampled = {"sampler": "tpe", "trials": 4, "lr": {"low": 1e-4, "high": 1e-2}}
    tries = [spec for tuning in ({"lr": [1e-3]}, sampled) for spec in trials(loaded(tuning=tuning))]
    for spec in [*expand(loaded()), *tries]:
        again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())), spec.fingerprint)
        assert (again, again.run_id) == (spec, spec.run_id)
