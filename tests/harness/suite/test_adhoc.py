"""Suites of a few words on the command line."""

import pytest

from harness.plan.expand import expand
from harness.suite import adhoc
from harness.suite.load import load


def specs(*arguments, **options):
    return expand(load(adhoc.source(*arguments, **options)))


def test_it_makes_the_runs_that_quick_makes():
    theirs = {spec.run_id for spec in expand(load("quick"))}
    own = specs(["text,mqar"], ["post_ln", "rwkv4"], seeds=2)
    assert len(own) == 8
    assert {spec.run_id for spec in own} <= theirs


def test_what_is_said_goes_before_what_quick_says():
    (spec,) = specs(["mqar"], ["s4d: {d_state: 8}"], seeds=1, params="40k", tokens="70k")
    assert (spec.match.target, spec.stop.limit, spec.options["d_state"]) == (40_000, 70_000, 8)
    (spec,) = specs(["mqar: {length: 16, pairs: 2}"], ["lstm"], seeds=1)
    assert (spec.task_options, spec.match.target) == ({"length": 16, "pairs": 2}, 200_000)


def test_names():
    suite = load(adhoc.source(["text"], ["pre_ln,rwkv4"]))
    assert (suite.name, suite.suite.seeds) == ("ad-hoc-text-pre_ln-rwkv4", [0, 1, 2])
    assert load(adhoc.source(["text"], ["pre_ln"], name="mine")).name == "mine"
    names = {
        adhoc._short_name(["text", *"s4d s5 gla mega h3 hyena mamba retnet rwkv4 griffin".split(), row]) for row in "ab"
    }
    assert {len(name) for name in names} == {adhoc.LONGEST}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--task txt --arch pre_ln", "--task: tasks.0.txt: unknown task 'txt'; did you mean 'text'?"),
        ("--task text --arch lstm,pre_lnn", "--arch: architectures.1: unknown architecture 'pre_lnn'; did you mean"),
        ("--task text --arch lstm --params x", "--params: budget.match.params: 'x' is not a number"),
        ("--task text --arch lstm --tokens 0", "--tokens: budget.stop.tokens: must be"),
        ("--task text --arch lstm --name a/b", "--name: suite: use letters"),
        ("--task text --arch lstm,[", "--arch: 'lstm,[' is not a list of names"),
        ("--task text", "name a SUITE, or both --task and --arch"),
        ("", "name a SUITE, or both --task and --arch"),
        ("quick --arch lstm", "--arch goes without SUITE"),
        ("quick --seeds 2", "--seeds goes without SUITE"),
        ("quick --device gpu", "--device: no device is called 'gpu'; use auto, cpu, cuda or cuda:N"),
        ("quick --device cuda:99", "--device: there is no cuda:99 on this machine; there is cpu"),
    ],
)
def test_errors_name_the_option_and_leave_nothing(arguments, words, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    assert words in call("run", *arguments.split(), status=2).stderr
    assert not list(tmp_path.iterdir())


def test_a_suite_that_stands_beside_its_results_is_found_by_name(tmp_path, monkeypatch, call):
    monkeypatch.setenv("ZOOBENCH_RESULTS", str(tmp_path))
    (tmp_path / "ad-hoc-x").mkdir()
    (tmp_path / "ad-hoc-x" / "suite.yaml").write_text("suite: ad-hoc-x\nextends: quick\nseeds: [4]\n")
    assert load("ad-hoc-x").suite.seeds == [4]
    assert call("status", "ad-hoc-x").stdout == "ad-hoc-x: 24 to do\n"
