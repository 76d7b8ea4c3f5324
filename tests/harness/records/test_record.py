"""Typed records: every published one is read and written back, unknown keys survive, and nothing is read in silence."""

import copy
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.errors import UserError
from harness.records import columns
from harness.records.files import to_json
from harness.records.record import Record
from harness.records.spec import MatchRule
from harness.records.store import Store, read_record

from ..made import make_record, make_spec

RESULTS = Path(__file__).parents[3] / "results"
LATER = {"also": [], "reference": None, "relative": None, "seconds_in_reference_steps": None, "defaults": None}
"""Keys that the first records did not have, and what they are read as."""


def differences(before, after, path=""):
    """Where two pieces of JSON differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {*before, *after}:
            if key not in before and key in LATER and after[key] == LATER[key]:
                continue
            yield from differences(before.get(key, "absent"), after.get(key, "absent"), f"{path}.{key}")
    elif before != after or type(before) is not type(after):
        yield path, before, after


@pytest.mark.parametrize("suite", sorted(path.parent.name for path in RESULTS.glob("*/records.parquet")))
def test_published_records_are_written_as_they_were_read(suite):
    for row in pq.read_table(RESULTS / suite / "records.parquet").to_pylist():
        data = columns.whole(row) | {"curve": []}
        record = Record.from_dict(data)
        assert list(differences(data, record.to_dict())) == []
        assert Record.from_dict(record.to_dict()) == record
        assert record.spec.run_id == record.run_id == row["run_id"]


def test_attributes_are_the_keys():
    record = Store("quick", RESULTS).records()[0]
    data = json.loads(to_json(record))
    assert record.budget.used.tokens == data["budget"]["used"]["tokens"] == record["budget"]["used"]["tokens"]
    assert record.metrics.score("test") == data["metrics"]["test"][data["metrics"]["primary"]]
    assert dict(record) == data
    with pytest.raises(AttributeError):
        record.budget.used.token  # noqa: B018
    with pytest.raises(KeyError):
        record["budgets"]


def test_unknown_keys_survive_at_every_level():
    data = make_record(make_spec(), 1.0).to_dict()
    odd = copy.deepcopy(data)
    for path in ((), ("spec",), ("spec", "train"), ("metrics",), ("eligibility",), ("speed",), ("data",)):
        place = odd
        for key in path:
            place = place[key]
        place["later"] = {"x": [1, None]}
    record = Record.from_dict(odd)
    assert record.to_dict() == odd
    assert record.spec.run_id != Record.from_dict(data).spec.run_id, "they decide what was run"


@pytest.mark.parametrize(
    ("lost", "change", "message"),
    [
        ((), {"schema": 2}, "record format 2, this zoobench reads 1"),
        (("status", "spec"), {}, "no status, spec in record"),
        ((), {"spec": {"seed": 0}}, "no architecture"),
    ],
)
def test_what_is_no_record_is_refused(lost, change, message, tmp_path):
    data = make_record(make_spec()).to_dict() | change
    (tmp_path / "record.json").write_text(json.dumps({key: data[key] for key in data.keys() - {*lost}}))
    with pytest.raises(UserError, match=message):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize(
    "rule",
    [
        {"params": 5, "count": "total", "tolerance": 0.1},
        {"flops_per_token": 5.0, "tolerance": 0.1, "solve": ["width"]},
        {"state_bytes": 5, "tolerance": 0.1},
    ],
)
def test_a_match_rule_is_written_as_it_is_read(rule):
    assert MatchRule.from_dict(rule).to_dict() == rule
