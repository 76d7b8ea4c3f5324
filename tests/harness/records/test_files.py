"""Files that may be anything: what is no regular file of bounded size is refused, and so are records of other types."""

import copy
import json
import math
import os
import random

import pytest

from harness.board.report import of_store
from harness.errors import UserError
from harness.records.files import read_json
from harness.records.record import Record
from harness.records.store import Store, read_record
from zoo import files

from ..made import make_record, make_spec

ODD = (
    None, True, -1, 10**30, 1e300, math.nan, math.inf, "", "x", "../..", "/etc/passwd", "\x1b[2J", [], {}, [None],
    {"": None}, [[]], "9" * 5000, {"a": {"b": [1]}},
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    made = Store("tiny", tmp_path / "results")
    for seed in (0, 1):
        made.write(make_record(make_spec(seed=seed), 1.0 + seed))
    return made


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)]
)
def test_only_regular_files_are_read_and_nothing_waits_for_others(make, tmp_path):
    make(tmp_path / "odd.json")
    with pytest.raises(UserError, match=r"odd\.json: \w+"):
        read_json(tmp_path / "odd.json")


def test_files_are_bounded_and_so_is_the_depth_of_json(tmp_path):
    path = tmp_path / "large.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(UserError, match=r"large\.json: has more than"):
        read_json(path)
    for text in ("[" * 100_000, '{"a": "\\ud800"}', "\x00", "9" * 100_000):
        path.write_text(text)
        with pytest.raises(UserError, match=r"large\.json: not JSON"):
            read_json(path)


def test_nothing_is_written_through_links(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("as it was")
    record, beside = make_record(make_spec(seed=2), 1.0), make_record(make_spec(seed=0), 1.0)
    (store.folder / record.run_id).symlink_to(outside, target_is_directory=True)
    with pytest.raises(OSError, match="symbolic link"):
        store.write(record)
    (outside / ".kept.part").write_text("as it was")
    (store.run_folder(beside.run_id) / "model").symlink_to(outside, target_is_directory=True)
    store.write(beside)
    (tmp_path / "link").symlink_to(outside / "kept")
    files.write(tmp_path / "link", "new")  # takes the link's place
    assert (tmp_path / "link").read_text() == "new"
    kept = dict.fromkeys(("kept", ".kept.part"), "as it was")
    assert {path.name: path.read_text() for path in outside.iterdir()} == kept
    for below in ("../x", "/x"):
        with pytest.raises(OSError, match="Leads out"):
            files.inside(tmp_path, below)
    with pytest.raises(RuntimeError), files.whole(tmp_path / "link"):
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "outside", "results"]


def _places(data, path=()):
    yield path
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from _places(value, (*path, key))


def test_changed_records_are_read_or_refused_by_their_key(store, request):
    """And what is read can be written, shown and hashed."""
    path = next(store.folder.glob("*/record.json"))
    sound, draw = json.loads(path.read_text()), random.Random(0)
    for _ in range(3000 if request.config.getoption("--all") else 300):
        data, value = copy.deepcopy(sound), draw.choice(ODD)
        *above, key = draw.choice([place for place in _places(sound) if place])
        here = data
        for step in above:
            here = here[step]
        here[key] = value
        path.write_text(json.dumps(data))
        try:
            said, known = "", read_record(path).spec.run_id
        except UserError as error:
            said, known = str(error), ""
        assert known or said.startswith(f"{path}: not a record: ")
        assert said.isprintable()


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("budget", "used", "tokens"), "x", "budget.used.tokens: expected a whole number, got 'x'"),
        (("budget", "used", "tokens"), -1, "budget.used.tokens: out of range: -1"),
        (("budget", "used", "seconds"), 10**400, "budget.used.seconds: out of range"),
        (("metrics", "valid", "loss"), [], "metrics.valid.loss: expected a number or null"),
        (("spec", "plugins"), [["a"]], "spec.plugins.0: expected a list of 2"),
        (("spec", "stop"), {"token": 1}, "spec.stop: expected one of tokens"),
        (("run_id",), "/tmp/x", "run_id: expected a name like"),
        (("suite",), "../x", "suite: expected a name like"),
        (("status",), "fine", "status: expected 'ok' or"),
    ],
)
def test_what_a_value_must_be(keys, value, message):
    data = make_record(make_spec(), 1.0).to_dict()
    *above, key = keys
    here = data
    for step in above:
        here = here[step]
    here[key] = value
    with pytest.raises(ValueError, match=message):
        Record.from_dict(data)


def test_a_damaged_record_is_a_row_and_the_rest_goes_on(store, call):
    path = next(store.folder.glob("*/record.json"))
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "budget": 3}))
    board, _ = of_store(store)
    assert [row.status for row in board.tasks[0].rows] == ["damaged"]
    assert "1 of 2 seeds damaged: " in board.tasks[0].rows[0].reason
    assert "record.json: not a record: budget: expected a mapping, got 3" in board.tasks[0].rows[0].reason
    path.write_text("{")
    (store.folder / "baselines.json").write_text("[]")
    board, records = of_store(store)
    assert len(records) == 1
    assert [note.split(": ")[0] for note in board.notes[:2]] == ["left out", "left out"]
    assert "record.json: not a record" in call("status", "--results", store.folder.parent).output
