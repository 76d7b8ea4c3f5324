"""Runs elsewhere: what goes by files of the shared folder; whole suites on Ray nodes that die, and by submitit."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import harness
from harness.executors.remote import Remote, perform
from harness.isolation.supervisor import Bounds, Ended

JOBS = """
import os, time

class Says:
    name = "says"
    def __init__(self, folder): self.folder = folder
    def outcome(self): return None
    def taken(self): return False
    def work(self, report):
        (self.folder / "checkpoint").mkdir(parents=True, exist_ok=True)
        for step in range(3): report({"event": "step", "step": step, "loss": float("nan")})
        report({"event": "end", "error": ValueError("no JSON")})
        time.sleep(600 * (self.folder / "long").exists())
"""


class InThread(Remote):
    """A cluster of one thread."""

    def __init__(self, job):
        super().__init__(job)
        self.future = ThreadPoolExecutor(1).submit(perform, job, Bounds(), 1)

    def finished(self):
        return self.future.done()

    def result(self):
        return self.future.result()

    def kill(self):
        self.ask("stop")


@pytest.fixture
def job(tmp_path, monkeypatch):
    (tmp_path / "planted_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    import planted_jobs

    (tmp_path / "run").mkdir()
    return planted_jobs.Says(tmp_path / "run")


def told(handle):
    found = []
    while not handle.gone:
        found += handle.events()
        time.sleep(0.02)
    return found


def test_what_a_run_reports_elsewhere_and_how_it_ended_is_told(job):
    handle = InThread(job)
    assert [event["step"] for event in told(handle)] == [0, 1, 2]
    assert handle.ended == Ended(0, "")


def test_a_run_elsewhere_is_asked_to_stop_by_a_file(job):
    (job.folder / "long").touch()
    handle = InThread(job)
    while not list(handle.events()):
        time.sleep(0.02)
    handle.ask("stop")
    told(handle)
    assert handle.ended.cause == "asked"


def test_a_run_that_the_cluster_lost_is_lost(job, monkeypatch):
    handle = InThread(job)
    monkeypatch.setattr(handle, "result", lambda: 1 / 0)
    assert told(handle)[-1] == {"event": "lost", "message": "ZeroDivisionError: division by zero"}
    assert handle.ended is None


def scores(results):
    ended = {r.run_id: (r.status, r.metrics.test, r.data.stream_hash) for r in results.records}
    return ended, {r.run_id: [point.loss for point in r.curve] for r in results.records}


@pytest.mark.with_all
def test_a_suite_on_ray_survives_a_node_and_equals_one_made_here(suite, quiet, tmp_path):
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    path = suite(budget={"match": "none", "stop": {"steps": 200}}, limits={"checkpoint": "0.5s"}, seeds=[0, 1])
    here = harness.run(path, root=tmp_path / "here", console=quiet, threads=1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)

        def lose():
            while len(list(tmp_path.glob("there/tiny/*/checkpoint/state.pt"))) < 2:
                time.sleep(0.1)
            cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(num_cpus=1)

        lost = ThreadPoolExecutor(1).submit(lose)
        there = harness.run(path, root=tmp_path / "there", console=quiet, on="ray", address=cluster.address)
        lost.result()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert scores(there) == scores(here)
    assert {len(record.segments) for record in there.records} == {1, 2}, "one was taken up on the other node"


@pytest.mark.with_all
def test_a_suite_by_submitit_equals_one_made_here(suite, quiet, tmp_path):
    pytest.importorskip("submitit")
    path = suite(budget={"match": "none", "stop": {"steps": 20}}, seeds=[0])
    here = harness.run(path, root=tmp_path / "here", console=quiet, threads=1)
    there = harness.run(path, root=tmp_path / "there", console=quiet, on="slurm", cluster={"cluster": "local"})
    assert scores(there) == scores(here)
    assert there.ok
