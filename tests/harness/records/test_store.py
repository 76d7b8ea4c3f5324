"""Records on disk: whole or absent, readable by any JSON reader, finished or published."""

import json
import math

import pytest

from harness.records.store import Store, default_root, to_json, write_atomic


@pytest.fixture
def store(tmp_path):
    return Store("tiny", tmp_path)


def record(run_id="abc", **more):
    return {"run_id": run_id, "status": "ok", "curve": [{"loss": 1.5}, {"loss": math.nan}], **more}


def test_a_record_comes_back_as_it_was_written(store):
    store.write(record(name="é", nested={"x": [1, 2.5, None]}))
    assert store.read("abc") == record(name="é", nested={"x": [1, 2.5, None]}, curve=[{"loss": 1.5}, {"loss": None}])
    assert (store.folder / "abc" / "curve.jsonl").read_text() == '{"loss": 1.5}\n{"loss": null}\n'
    assert store.records() == [store.read("abc")]


def test_what_is_not_there_reads_as_nothing(store):
    assert store.read("nothing") is None
    assert store.records() == []
    assert store.published() == {}
    assert store.read_baselines() == {}
    assert not store.finished("nothing")


def test_nan_and_infinities_become_null():
    data = {"a": math.nan, "b": [math.inf, -math.inf, 1.0], "c": ({"d": math.nan},)}
    assert json.loads(to_json(data)) == {"a": None, "b": [None, None, 1.0], "c": [{"d": None}]}


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file.json"
    write_atomic(path, "old")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_a_folder_without_a_record_is_unfinished(store):
    checkpoint = store.run_folder("abc") / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.pt").touch()
    assert not store.finished("abc")
    store.write(record())
    assert store.finished("abc")
    assert not checkpoint.exists()


def test_a_published_record_is_somebody_elses_until_it_is_made_anew(store):
    store.write(record())
    assert store.publish() == 1
    assert not store.finished("abc")
    assert store.finished("abc", published={})
    assert store.read("abc") is not None
    store.write(record(seconds=2.0))
    assert store.finished("abc")
    store.publish()
    assert not store.finished("abc")


def test_baselines_come_back(store):
    store.write_baselines({"key": [{"value": 1.0}]})
    assert store.read_baselines() == {"key": [{"value": 1.0}]}


def test_the_root_is_taken_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOOBENCH_RESULTS", str(tmp_path / "elsewhere"))
    assert default_root() == tmp_path / "elsewhere"
    monkeypatch.delenv("ZOOBENCH_RESULTS")
    assert str(default_root()) == "results"
