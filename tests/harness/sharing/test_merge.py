"""Contributions of several people on one board."""

import json

import pytest
import yaml

from harness.board.report import board
from harness.plan.expand import expand
from harness.records.published import Published
from harness.records.store import Store
from harness.suite.load import load

from ..conftest import TINY
from ..made import do


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two people's bundles of one suite, each of one row, and one that claims a run of the other's row."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    for name in ("pre_ln", "lstm"):
        store = Store("tiny", folder / name)
        for spec in expand(load(folder / "tiny.yaml")):
            if spec.architecture == name:
                store.write(do(spec, store.run_folder(spec.run_id)))
    return folder


@pytest.fixture(scope="module")
def bundles(folder, call):
    made = {}
    for name, who in (("pre_ln", "Ada"), ("lstm", "Bob <script>")):
        made[name] = folder / f"{name}.zip"
        given = ("--by", who, "--out", made[name], "--results", folder / name)
        assert call("submit", folder / "tiny.yaml", *given).stdout == f"2 runs by {who} in {made[name]}\n"
    return made


def test_bundles_become_one_board_that_says_whose_runs_they_are(folder, bundles, call, tmp_path):
    into = ("--into", folder / "tiny.yaml", "--results", tmp_path)
    said = call("merge", *bundles.values(), *into).stdout
    assert said.endswith(f"4 runs added to {tmp_path / 'tiny'}\n")
    published = Published(tmp_path / "tiny")
    published.check()
    found = [published.record(run_id).origin for run_id in published.ids()]
    assert {(one.kind, one.contributor) for one in found} == {("reported", "Ada"), ("reported", "Bob <script>")}
    listed = published.index["contributions"]
    assert [(one["contributor"], one["runs"], one["origin"]) for one in listed] == [
        ("Ada", 2, "reported"),
        ("Bob <script>", 2, "reported"),
    ]
    assert published.index["baselines"], "scored here"
    text = (tmp_path / "tiny" / "board.md").read_text()
    assert "nothing could be ranked" in text
    assert "<script>" not in text

    said = call("merge", bundles["lstm"], *into).stdout
    assert said.count("left out, published already (reported by Bob <script>), with the same scores") == 2
    assert said.endswith(f"0 runs added to {tmp_path / 'tiny'}\n")
    assert call("verify", tmp_path).stdout == "every record is sound\n"


@pytest.mark.slow
def test_runs_made_again_make_a_contribution_reviewed(folder, bundles, call, tmp_path):
    into = ("--into", folder / "tiny.yaml", "--results", tmp_path)
    call("merge", *bundles.values(), *into)
    said = call("merge", *bundles.values(), *into, "--rerun", 1, "--json").stdout
    done = json.loads(said[said.index("{") :])
    assert [(one["accepted"], len(one["again"])) for one in done["reviews"]] == [(True, 1), (True, 1)]
    call("publish", folder / "tiny.yaml", "--results", tmp_path)
    store = Store("tiny", tmp_path)
    assert {record.origin.kind for record in store.records()} == {"reviewed"}
    assert all(row.origin == "reviewed" for row in board(str(folder / "tiny.yaml"), root=tmp_path).tasks[0].rows)
    assert len(store.published.index["contributions"]) == 4


def test_nothing_is_merged_if_one_bundle_is_refused(folder, bundles, call, tmp_path):
    (tmp_path / "bad.zip").write_bytes(bundles["lstm"].read_bytes()[:-40])
    into = ("--into", folder / "tiny.yaml", "--results", tmp_path / "results")
    said = call("merge", bundles["pre_ln"], tmp_path / "bad.zip", *into, status=1).stdout
    assert "bundle: bad.zip: no whole zip file" in said
    assert said.endswith("nothing was merged\n")
    assert not (tmp_path / "results").exists()
    other = ("--set", "budget.stop.steps=7", "--results", tmp_path / "results")
    said = call("review", bundles["pre_ln"], folder / "tiny.yaml", *other, status=1).stdout
    assert "no run of this suite; differs in stop.steps" in said
    assert said.endswith("pre_ln.zip: refused, 4 finding(s)\n")


@pytest.mark.slow
def test_a_run_is_made_again_by_its_name(folder, call):
    said = call("verify", "tiny/lstm/mqar/1", "--results", folder / "lstm", "--rerun", 1).stdout
    assert "made again: scores are equal to the last digit" in said
    assert said.endswith("every record is sound\n")
    assert "no file, folder or run of this name" in call("verify", "nowhere", status=2).stderr
