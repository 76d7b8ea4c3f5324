"""`zoobench claims`: what it makes, shows and refuses; scores come from records."""

import json
import shlex

import pytest

from harness.claims.plan import claims
from harness.claims.quantities import Column, folder, read
from harness.gates.registry import gates
from harness.records.record import Eligibility, Gate
from harness.records.store import Store

from ..made import make_record, make_spec


def test_an_experiment_is_made_once_and_judged(call, tmp_path):
    options = ("--scale", "smoke", "--results", tmp_path, "--json")
    (before,) = json.loads(call("claims", "permutation", *options).stdout)
    assert before["verdict"] == "not measured"
    (made,) = json.loads(call("claims", "permutation", "--run", *options).stdout)
    assert [contrast["seeds"] for contrast in made["contrasts"]] == [2, 2, 2]
    assert made["contrasts"][0]["finding"] == "holds"
    file = tmp_path / "claims" / "permutation-smoke.json"
    kept = file.read_text()
    (again,) = json.loads(call("claims", "permutation", "--run", *options).stdout)
    assert again == made
    assert file.read_text() == kept, "what was measured stays"


def test_the_line_that_makes_it_again_is_a_command(call, tmp_path):
    said = call("claims", "permutation", "--scale", "smoke", "--results", tmp_path).stdout
    line = " ".join(said.split()).partition("again: zoobench ")[2]
    assert call(*shlex.split(line), "--results", tmp_path).stdout.startswith("permutation: ")


def test_all_claims_stand_in_one_table(call, tmp_path):
    said = call("claims", "--results", tmp_path).stdout
    assert all(name in said for name in claims())
    assert "99.6%" in said


def test_mistakes(call, tmp_path):
    said = call("claims", "permutaton", "--results", tmp_path, status=2).stderr
    assert said.startswith("zoobench: no claim is called 'permutaton'; did you mean 'permutation'")
    file = tmp_path / "claims" / "permutation.json"
    file.parent.mkdir()
    for text in ("{", "[]", "{}", '{"values": {"x": ["a"]}, "seconds": 1, "made": []}', '{"values": 1}'):
        file.write_text(text)
        said = call("claims", "permutation", "--results", tmp_path, status=2).stderr
        assert said.startswith(f"zoobench: {file}")
        assert len(said.splitlines()) == 1


@pytest.fixture
def store(tmp_path):
    """The suite of `delta_rule`, into which records of tiny runs can be put."""
    return Store(claims()["delta_rule"].suite, folder(tmp_path))


def put(store, seed, *, status="ok", score=None, ranked=True, **spec):
    spec = make_spec("pre_ln", seed=seed, **spec)
    record = make_record(spec, status=status)
    test = {} if score is None else {"accuracy": score, "loss": 1.0}
    metrics = record.metrics.replace(primary="accuracy", test=test, chance=0.1)
    gate = Gate(passed=ranked, measured=None, limit=None)
    eligibility = Eligibility(ranked=ranked, gates={next(iter(gates())): gate})
    store.write(record.replace(suite=store.suite, metrics=metrics, eligibility=eligibility))


def test_scores_are_those_of_final_runs_that_may_be_ranked(store, tmp_path):
    put(store, 0, score=0.5)
    put(store, 1, score=0.25)
    put(store, 2, status="diverged")
    put(store, 3, score=1.0, ranked=False)
    put(store, 4, status="oom")
    put(store, 1000, score=0.9, kind="trial")
    found = read("delta_rule", "small", tmp_path)
    column = Column("mqar", "", "accuracy", primary=True, higher=False)
    assert sorted(found.scores[column]["pre_ln"]) == [0.1, 0.25, 0.5], "chance is what a run scores that diverged"
    assert found.diverged == {("mqar", "", "pre_ln"): 1}
    assert found.left_out == [
        f"pre_ln · mqar · seed 3: {next(iter(gates()))}",
        "pre_ln · mqar · seed 4: oom",
    ]


def test_the_site_has_a_page_of_all_claims_and_of_each(call, tmp_path, store):
    put(store, 0, score=0.5)
    call("claims", "permutation", "--scale", "smoke", "--run", "--results", tmp_path)
    (tmp_path / "claims" / "permutation-smoke.json").rename(tmp_path / "claims" / "permutation.json")
    suite = Store("tiny", tmp_path)
    suite.write(make_record(make_spec()))
    call("site", tmp_path / "site", "--results", tmp_path)
    pages = {path.name: path.read_text() for path in (tmp_path / "site" / "claims").iterdir()}
    assert {*pages} == {"index.html", *(f"{name}.html" for name in claims())}
    assert '<a href="permutation.html">permutation</a>' in pages["index.html"]
    assert "two causal layers, permuted prefix &gt; 0.001" in pages["permutation.html"]
    assert "the delta rule is ahead by a tenth" in pages["delta_rule.html"]
    assert '<a href="../claims/index.html">Claims</a>' in pages["index.html"]
    assert "claim_delta_rule" not in (tmp_path / "site" / "index.html").read_text(), "no suite of the leaderboard"
