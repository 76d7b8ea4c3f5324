"""Records on disk: whole or absent, readable by any JSON reader, finished or published."""

import json
import math
from dataclasses import replace

import pytest

from harness.records.checks import sealed
from harness.records.files import to_json, write_atomic
from harness.records.record import CurvePoint
from harness.records.store import Store, default_root

from ..made import make_record, make_spec


@pytest.fixture
def store(tmp_path):
    return Store("tiny", tmp_path)


@pytest.fixture
def record():
    """A record, and a point of its curve that is not a number."""
    made = make_record(make_spec(architecture_label="é"), 1.5)
    return made.replace(curve=[CurvePoint(1, 1, 1, 0.5, 1.5), CurvePoint(2, 2, 2, 1.0, math.nan)])


def test_a_record_comes_back_as_it_was_written(store, record):
    store.write(record)
    point = replace(record.curve[1], loss=None)
    assert store.read(record.run_id) == sealed(record.replace(curve=[record.curve[0], point]))
    lines = (store.folder / record.run_id / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [1.5, None]
    assert store.records() == [store.read(record.run_id)]


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


def test_the_root_is_taken_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOOBENCH_RESULTS", str(tmp_path / "elsewhere"))
    assert default_root() == tmp_path / "elsewhere"
    monkeypatch.delenv("ZOOBENCH_RESULTS")
    assert str(default_root()) == "results"
