"""Whole suites, in real worker processes: what is left on disk, what happens to runs that fail, stop or are killed."""

import json
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

import harness
from harness.board.report import board, publish
from harness.commands.status import status
from harness.errors import UserError
from harness.gates.registry import gates
from harness.plan.expand import expand
from harness.plan.trials import trials
from harness.records.store import Store
from harness.suite.load import load

PLUGIN = """
import os, signal, time
import torch
from torch import nn
from zoo import Mixer, Traits, register


class Mean(Mixer):
    traits = Traits(causal="strict", bidirectional=False, resumable=False)

    def __init__(self, context):
        super().__init__(context)
        self.w = nn.Parameter(torch.ones(context.width))

    def forward(self, x, *, mask=None, state=None):
        if x.device.type != "meta":
            self.misbehave()
        return self.w * x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None], None


def raises(mixer):
    raise RuntimeError("planted\\nfault")


FAULTS = {
    "my_mean": lambda mixer: None,
    "raises": raises,
    "killed": lambda mixer: os.kill(os.getpid(), signal.SIGKILL),
    "exits": lambda mixer: os._exit(3),
    "hungry": lambda mixer: torch.empty(2**55),
    "slow": lambda mixer: time.sleep(0.02 * mixer.training),
    "sleeps": lambda mixer: time.sleep(600),
}
for name, fault in FAULTS.items():
    register(name)(type(name, (Mean,), {"misbehave": fault, "__doc__": f"The mean so far, but {name}."}))
"""


UNJUDGED = {"evaluate": {"valid": 8, "test": 8, "skip_gates": list(gates())}}
"""Of runs of which it is not asked whether they may be ranked: gates take longer than the few steps do."""


@pytest.fixture
def run(suite, quiet, tmp_path):
    """Runs the tiny suite with some keys replaced; its results."""
    (tmp_path / "mine.py").write_text(PLUGIN)

    def run(workers=2, ignore_published=False, only=None, **changes):
        given = {
            "root": tmp_path,
            "workers": workers,
            "ignore_published": ignore_published,
            "console": quiet,
            "trust": True,
            **(only or {}),
        }
        return harness.run(suite(**changes), **given)

    return run


def by_architecture(results):
    return {record.spec.architecture: record for record in results.records}


def best(tried):
    """The trial that a cell chooses."""
    return min(tried, key=lambda record: (-record.metrics.valid["accuracy"], record.spec.train.lr))


@pytest.mark.slow
def test_a_suite_from_start_to_end_and_once_more(run, quiet):
    results = run(seeds=[0])
    assert (results.ran, len(results.records), results.ok) == (2, 2, True)
    assert {record.status for record in results.records} == {"ok"}
    for record in results.records:
        folder = results.folder / record.run_id
        assert sorted(path.name for path in folder.iterdir()) == ["curve.jsonl", "model", "record.json"]
    assert json.loads((results.folder / "baselines.json").read_text())

    again = run(seeds=[0])
    assert again.ran == 0
    assert "nothing to do" in quiet.file.getvalue()
    assert again.records == results.records

    more = run(seeds=[0, 1])
    assert (more.ran, len(more.records)) == (2, 4), "only what is missing"
    assert len({r.data.stream_hash for r in more.records}) == 2, "one for each seed"


@pytest.mark.slow
def test_published_runs_count_as_finished_unless_they_are_ignored(run, suite, quiet, tmp_path):
    both = {"architectures": ["lstm", "mlp_mixer"], "seeds": [0], **UNJUDGED}
    first, store = run(**both), Store("tiny", tmp_path)
    cannot = by_architecture(first)["mlp_mixer"]
    assert (cannot.status, cannot.error.kind, first.ok) == ("unsupported", "Unsupported", True)
    assert "causal" in cannot.error.message
    assert publish(str(suite(**both)), root=tmp_path)[0] == 2
    for record in first.records:
        shutil.rmtree(store.run_folder(record.run_id))
    again = run(**both)
    assert (again.ran, again.records) == (0, first.records), "what was published is taken from there"
    assert "2 of them published ones" in quiet.file.getvalue()
    own = run(**both, ignore_published=True)
    assert (own.ran, store.made_here(own.records[0].run_id)) == (2, True)
    assert [r.metrics for r in own.records] == [r.metrics for r in first.records]
    assert own.records[0]["metrics"] == dict(own.records[0])["metrics"] == own.records[0].metrics.to_dict()
    assert Store("tiny", tmp_path).records() == own.records != first.records, "one's own stand for published ones"


@pytest.mark.slow
def test_plugins_run_and_each_failure_leaves_a_record_while_others_go_on(run, quiet):
    statuses = {"raises": "failed", "exits": "failed", "hungry": "oom", "my_mean": "ok", "lstm": "ok"}
    rows = {"plugins": ["mine.py"], "architectures": [*statuses, "killed"], "seeds": [0]}
    results = run(**rows)
    records = by_architecture(results)
    assert {name: record.status for name, record in records.items()} == statuses
    assert records["raises"].error.message == "planted fault"
    assert "mine.py" in records["raises"].error.where
    assert "RuntimeError: planted" in (results.folder / records["raises"].run_id / "output.txt").read_text()
    assert "exit code 3" in records["exits"].error.message
    assert (results.ran, results.lost, results.ok) == (5, 1, False), "who is killed from outside has no result"
    assert "killed from outside (SIGKILL); tried again (2 of 2)" in quiet.file.getvalue()
    assert records["my_mean"].eligibility.ranked
    assert run(**rows).ran == 0, "a failure is a row, too"


@pytest.mark.slow
def test_a_run_over_its_time_is_stopped_and_says_so(run):
    (record,) = run(1, plugins=["mine.py"], architectures=["sleeps"], seeds=[0], limits={"timeout": "3s"}).records
    assert record.status == "timeout"
    assert "3 s" in record.error.message


@pytest.mark.slow
def test_a_tuned_suite_tries_first_and_runs_with_what_each_cell_chose(run, suite, tmp_path):
    tuned = {
        "tuning": {"lr": [1e-5, 3e-2], "budget": "50%"},
        "budget": {"match": "none", "stop": {"steps": 40}},
        "seeds": [0],
        **UNJUDGED,
    }
    results, store, loaded = run(**tuned), Store("tiny", tmp_path), load(suite(**tuned))
    assert (results.ran, results.ok) == (6, True)
    for record in results.records:
        own = [r for r in store.records() if r.spec.architecture == record.spec.architecture]
        tried = [r for r in own if r.spec.kind == "trial"]
        assert [r.budget.used.steps for r in tried] == [20, 20]
        assert (record.spec.kind, record.spec.train.lr) == ("final", best(tried).spec.train.lr)
    assert len(store.records()) == len(expand(loaded)) + len(trials(loaded))
    assert run(**tuned).ran == 0
    path = store.run_folder(tried[0].run_id) / "record.json"
    path.write_text("{")
    rows = board(str(suite(**tuned)), root=tmp_path).tasks[0].rows
    assert sorted(row.status for row in rows) == ["damaged", "ok"]
    assert run(**tuned).ran == 1
    assert store.read(tried[0].run_id).metrics == tried[0].metrics


@pytest.mark.slow
def test_a_suite_is_made_table_by_table(run, suite, quiet, tmp_path):
    """Two tasks in two tracks, tuned: what is named is made, and all of it in the end as if at once."""
    mqar = {"length": 8, "pairs": 2, "vocab": 16}
    keys = {
        "architectures": ["lstm"],
        "tasks": [{"mqar": mqar}, {"mqar": mqar, "as": "again"}],
        "tracks": {"short": {"stop": {"steps": 2}}, "long": {"stop": {"steps": 4}}},
        "tuning": {"lr": [1e-3, 1e-2], "budget": "50%"},
        **UNJUDGED,
    }
    store, loaded = Store("tiny", tmp_path), load(suite(**keys))

    def made():
        return sorted((r.spec.task_label, r.spec.track, r.spec.kind) for r in store.records())

    results = run(only={"tasks": ["again"], "tracks": ["long"]}, **keys)
    one = [("again", "long", "final"), ("again", "long", "trial")]
    assert (results.ran, results.ok, made()) == (4, True, [one[0]] * 2 + [one[1]] * 2)
    assert {row["task_label"] for rows in store.read_baselines().values() for row in rows} == {"again"}
    assert [task.title for task in results.board.tasks if task.ranked] == ["again · long"]
    assert run(only={"tasks": ["again"], "tracks": ["long"]}, **keys).ran == 0
    assert "all 4 runs are finished" in quiet.file.getvalue()
    assert run(only={"tracks": ["long"]}, **keys).ran == 4
    assert [task.title for task in board(str(suite(**keys)), root=tmp_path).tasks if task.ranked] == [
        "mqar · long",
        "again · long",
    ]
    assert run(**keys).ran == 8
    assert len(made()) == len(expand(loaded)) + len(trials(loaded)) == 16
    with pytest.raises(UserError, match="--track: tiny has none that is called 'lang'; did you mean 'long'"):
        run(only={"tracks": ["lang"]}, **keys)


@pytest.mark.slow
def test_seeds_are_added_in_rounds_and_a_lost_run_of_one_is_made_again(run, suite, quiet, tmp_path):
    """Two rows that two seeds cannot separate, and one that fails, to which nothing is added."""
    added = {
        "plugins": ["mine.py"],
        "architectures": ["lstm", "my_mean", "raises"],
        "seeds": {"start": 2, "most": 3, "until": "separated"},
        **UNJUDGED,
    }
    results, store = run(**added), Store("tiny", tmp_path)
    assert results.ran == 8
    assert sorted((r.spec.architecture, r.spec.seed) for r in results.records) == [
        *((name, seed) for name in ("lstm", "my_mean") for seed in range(3)),
        *(("raises", seed) for seed in range(2)),
    ]
    assert "undecided after 2 seeds; one more for lstm, my_mean" in quiet.file.getvalue()
    assert run(**added).ran == 0
    assert "all 8 runs are finished" in quiet.file.getvalue()
    made = board(str(suite(**added)), root=tmp_path)
    assert any("undecided with 3 seeds, the most" in note for note in made.tasks[0].notes)
    assert {row.architecture: len(row.seeds) for row in made.tasks[0].ranked} == {"lstm": 3, "my_mean": 3}
    late = next(r for r in results.records if r.spec.seed == 2)
    shutil.rmtree(store.run_folder(late.run_id))
    made = board(str(suite(**added)), root=tmp_path)
    assert {len(row.seeds) for row in made.tasks[0].ranked} == {2}, "its round has not ended"
    assert run(**added).ran == 1
    assert [r.metrics for r in run(**added).records] == [r.metrics for r in results.records]


@pytest.mark.slow
def test_a_sampled_suite_goes_on_with_the_same_trials_when_some_are_lost(run, suite, tmp_path):
    space = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "dropout": {"low": 0, "high": 0.5}}
    tuning = {"sampler": "tpe", "trials": 7, **space}
    sampled = {"tuning": tuning, "architectures": ["lstm", "mlp_mixer"], "seeds": [0], **UNJUDGED}
    store, path = Store("tiny", tmp_path), str(suite(**sampled))
    assert status(path, tmp_path)[0]["counts"]["to do"] == 2 + 2 * 7
    results = run(**sampled)
    assert (results.ran, results.ok) == (16, True)
    assert status(path, tmp_path)[0]["counts"]["to do"] == 0
    records = {r.run_id: r for r in store.records()}
    tried = [r for r in records.values() if r.spec.kind == "trial" and r.status == "ok"]
    tried.sort(key=lambda r: r.spec.tuning.trial)
    assert [r.spec.tuning.trial for r in tried] == list(range(7))
    final = by_architecture(results)["lstm"]
    assert final.spec.point == best(tried).spec.point
    assert final.defaults
    for lost in ([1, 5], [6]):
        for number in lost:
            shutil.rmtree(store.run_folder(tried[number].run_id))
        assert run(**sampled).ran == len(lost)
        assert {r.run_id for r in store.records()} == set(records)


LONG = {
    "plugins": ["mine.py"],
    "architectures": ["slow"],
    "seeds": [0],
    "budget": {"match": "none", "stop": {"steps": 60}},
    "limits": {"checkpoint": "0.2s"},
    **UNJUDGED,
}


def start(path, root):
    """The command in its own process, which hears Ctrl-C even where the tests run in the background."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from harness.commands import main; main()"
    command = [sys.executable, "-c", code, "run", str(path), "--trust", "--workers", "1", "--results", str(root)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_loses_its_parent_leaves_no_orphan_and_goes_on_later(how, run, suite, tmp_path):
    parent, children = start(suite(**LONG), tmp_path), []
    try:
        wait_for(lambda: list(tmp_path.glob("tiny/*/checkpoint/state.pt")))
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.send_signal(how)
        _, said = parent.communicate(timeout=300)
        assert parent.returncode == (130 if how is signal.SIGINT else -how)
        if how is signal.SIGINT:
            assert "the same command goes on from here" in said
        assert "Traceback" not in said
        wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    finally:
        parent.kill()
        for child in children:
            if child.is_running():
                child.kill()
    assert not list(tmp_path.glob("tiny/*/record.json"))
    assert (tmp_path / "tiny" / "baselines.json").is_file()
    (record,) = run(1, **LONG).records
    assert (record.status, record.budget.used.steps) == ("ok", 60)
    assert len(record.segments) == 2
    assert 0 < record.segments[1].from_step < 60
    assert not list(tmp_path.glob("tiny/*/checkpoint"))


@pytest.mark.slow
def test_two_share_a_suite_and_make_no_run_twice(run, suite, tmp_path):
    several = {**LONG, "seeds": [0, 1, 2]}
    other = start(suite(**several), tmp_path)
    try:
        wait_for(lambda: list(tmp_path.glob("tiny/*/checkpoint/state.pt")))
        records = run(1, **several).records
    finally:
        other.communicate(timeout=300)
    assert other.returncode == 0
    assert [(record.status, len(record.segments)) for record in records] == [("ok", 1)] * 3
