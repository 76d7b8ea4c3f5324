"""The published boards, made again from their records: every number is the one that stands there."""

import dataclasses
import json
from pathlib import Path

import pytest

from harness.board import report
from harness.records.store import Store
from harness.suite.load import load

RESULTS = Path(__file__).parents[3] / "results"


def assert_same(found, expected, where=""):
    """The same keys, names and numbers; notes are words."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected.keys() - {"notes"}:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    else:
        number = isinstance(expected, float)
        assert found == (pytest.approx(expected, rel=1e-9, abs=1e-12) if number else expected), where


@pytest.mark.parametrize("suite", ["quick", "fair", "local_questions"])
def test_published_boards_come_out_the_same(suite):
    """A suite with baselines and several tasks, one with tracks, and one with questions and published weights."""
    store = Store(suite, RESULTS)
    baselines = [row for rows in store.read_baselines().values() for row in rows]
    made = report.rank(load(suite), store.records(), baselines)
    published = json.loads((RESULTS / suite / "board" / "board.json").read_text())
    assert_same(json.loads(json.dumps(dataclasses.asdict(made))), published)
