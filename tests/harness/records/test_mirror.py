"""Results at a URL: one record a run, one holder of a lease, and what was made is there for the next machine."""

import fsspec
import pytest

import harness
from harness.errors import UserError
from harness.records import mirror
from harness.records.mirror import Mirror
from harness.records.store import Store

from ..execute.test_runner import UNJUDGED

URL, RUN = "memory://bucket/results", "tiny/0123456789abcdef"


@pytest.fixture(autouse=True)
def bucket(monkeypatch):
    """An empty storage, which lives as long as the process."""
    monkeypatch.setattr(mirror, "_opened", {})
    yield fsspec.filesystem("memory")
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def machines(tmp_path):
    """Two machines that share the storage."""
    return Mirror(URL, tmp_path / "one"), Mirror(URL, tmp_path / "two")


def write(mirror, path, text):
    file = mirror.folder / RUN / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def texts(bucket):
    return {path.removeprefix(f"/bucket/results/{RUN}/"): bucket.cat(path) for path in bucket.find("/bucket")}


def test_a_run_goes_on_elsewhere_and_its_first_record_stays(machines, bucket):
    one, two = machines
    assert (one.lease(RUN), two.lease(RUN), one.lease(RUN)) == (True, False, True)
    write(one, "checkpoint/state.pt", "half")
    write(one, "checkpoint/lock", "ours")
    one.send()
    one.give_up(RUN)
    assert two.lease(RUN)
    assert (two.folder / RUN / "checkpoint" / "state.pt").read_text() == "half"
    assert not one.lease(RUN)
    for machine, text in ((two, "first"), (one, "second")):
        write(machine, "record.json", text)
        write(machine, "model/weights", text)
        machine.send()
    assert texts(bucket) == {"record.json": b"first", "model/weights": b"second"}, "no checkpoint, lock or lease"
    assert (one.folder / RUN / "record.json").read_text() == "first"
    assert one.has(RUN)
    write(one, "record.json", "first, with answers")
    one.send()
    assert texts(bucket)["record.json"] == b"first, with answers"


def test_what_is_there_is_here_but_weights_only_where_asked_for(machines):
    one, two = machines
    write(one, "record.json", "{}")
    write(one, "model/weights", "w")
    (one.folder / "link").symlink_to("/etc/passwd")
    one.send()
    two.fetch()
    here = lambda: {path.name for path in two.folder.rglob("*") if path.is_file() and path.name[0] != "."}  # noqa: E731
    assert here() == {"record.json"}
    two.fetch(f"{RUN}/model", weights=True)
    assert here() == {"record.json", "weights"}
    two.files.pipe_file(f"/bucket/results/{RUN}/../../../../stray-of-mirror", b"x")
    with pytest.raises(UserError, match="Leads out"):
        two.fetch()
    assert not list(two.folder.parents[1].glob("stray-of-mirror"))


def test_a_lease_is_void_if_its_holder_is_dead_or_silent(machines, bucket, monkeypatch):
    one, two = machines
    assert one.lease(RUN)
    (path,) = bucket.find("/bucket")
    for dead in (f"{two.me.split()[0]} 99999999 1", f"{two.me.split()[0]} x 1"):
        bucket.pipe_file(path, dead.encode())
        assert two._void(f"{RUN}/checkpoint/lease-0")
    bucket.pipe_file(path, b"elsewhere 1 1")
    now = [1000.0]
    monkeypatch.setattr(mirror.time, "monotonic", lambda: now[0])
    assert not two.lease(RUN)
    now[0] += mirror.STALE - 1
    bucket.pipe_file(path, b"elsewhere 1 2")
    assert not two.lease(RUN)
    now[0] += mirror.STALE - 1
    assert not two.lease(RUN)
    now[0] += 2
    assert two.lease(RUN)
    three = Mirror(URL, two.folder.parent / "three")
    assert not three.lease(RUN), "the next lease is alive"


def test_a_suite_is_made_at_a_url_and_read_on_another_machine(suite, quiet, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOOBENCH_CACHE", str(tmp_path / "one"))
    given = {"workers": 2, "console": quiet}
    path = suite(architectures=["lstm"], **UNJUDGED)
    made = harness.run(path, root=URL, **given)
    assert (made.ran, made.ok, made.folder.parent.parent) == (2, True, tmp_path / "one" / "results")
    monkeypatch.setattr(mirror, "_opened", {})
    monkeypatch.setenv("ZOOBENCH_CACHE", str(tmp_path / "two"))
    again = harness.run(path, root=URL, **given)
    assert (again.ran, again.records) == (0, made.records)
    assert Store("tiny", mirror.folder_of(URL)).described()["suite"] == "tiny"
    with pytest.raises(UserError, match="on ray, results lie in a folder that all nodes see"):
        harness.run(path, root=URL, on="ray", **given)
    for wrong in ("nothing://x", "memory2://"):
        with pytest.raises(UserError, match=wrong):
            harness.run(path, root=wrong)
