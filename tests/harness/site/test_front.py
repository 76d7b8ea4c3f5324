"""The matrix of the front page, computed again from the Parquet files by other code; and the overall order."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.site import front
from harness.site.suites import read_suites
from harness.stats.overall import overall

from .conftest import RESULTS


def expected_cells(suite):
    """By (task, track): the normalised mean of each architecture, and which rows a board may rank."""
    frame = pd.read_parquet(RESULTS / suite / "records.parquet")
    index = json.loads((RESULTS / suite / "published.json").read_text())
    lines = {(b["task_label"], b["name"], b["value"]) for rows in index["baselines"].values() for b in rows}
    finals = frame[(frame.kind == "final") & (frame.status == "ok") & frame.passed_gates & frame.test.notna()]
    found = {}
    for (task, track), rows in finals.groupby(["task", "track"]):
        sign = 1.0 if rows.higher_is_better.iloc[0] else -1.0
        means = rows.groupby("architecture").test.mean() * sign
        best = rows[rows.architecture == means.idxmax()].test.to_numpy() * sign
        half = stats.t.ppf(0.975, len(best) - 1) * best.std(ddof=1) / math.sqrt(len(best))
        surely = min(best.min(), best.mean() - half)
        chance = json.loads(rows["record.metrics.chance"].iloc[0])
        values = [sign * value for label, _, value in lines if label == task] + [sign * chance]
        zero = max((value for value in values if value < surely), default=None)
        if zero is not None:
            found[task, track] = ((means - zero) / (means.max() - zero)).clip(lower=0).to_dict()
    return found


@pytest.mark.slow
def test_the_matrix_equals_what_other_code_makes_of_the_files(site):
    rows = {row["architecture"]: row for row in json.loads((site / "downloads" / "front" / "matrix.json").read_text())}
    compared = 0
    for suite in ("quick", "fair"):
        for (task, track), cells in expected_cells(suite).items():
            title = f"{suite}: {task} · {track}" if track else f"{suite}: {task}"
            for architecture, value in cells.items():
                assert rows[architecture][title] == pytest.approx(value, rel=1e-9, abs=1e-12), (title, architecture)
                compared += 1
            others = {name for name, row in rows.items() if isinstance(row[title], float)} - cells.keys()
            assert not others, title
    assert compared > 40


def made_of(strengths, tasks, rng, seeds=3):
    """Boards on which a stronger architecture scores higher, with noise."""
    return [
        (f"task {i}", {name: [mean + rng.normal() for _ in range(seeds)] for name, mean in strengths.items()})
        for i in range(tasks)
    ]


def test_an_order_that_was_planted_is_found_with_intervals_that_hold_it():
    strengths = {f"row {i}": 0.8 * i for i in range(6)}
    found = overall(made_of(strengths, 40, np.random.default_rng(0)))
    assert list(found) == sorted(strengths, key=strengths.get, reverse=True)
    for place, row in enumerate(found.values(), 1):
        assert row.rank_low <= place <= row.rank_high
        assert row.low <= row.wins <= row.high


def test_chances_are_those_of_the_model():
    """One row wins three boards of four: at the maximum of the likelihood its wins, with the half game that each row
    wins against strength 1, are what the model expects of it."""
    boards = [(f"t{i}", {"a": [1.0 if i else 0.0], "b": [0.0 if i else 1.0]}) for i in range(4)]
    found = overall(boards, fewest=1)
    strength = math.sqrt(found["a"].wins / (1 - found["a"].wins))  # the odds are π_a / π_b, and π_b = 1 / π_a
    assert 4 * found["a"].wins + strength / (strength + 1) == pytest.approx(3.5)


def test_who_is_on_few_tasks_has_no_place_and_twins_share_one():
    rng = np.random.default_rng(1)
    boards = made_of({"good": 3.0, "bad": 0.0}, 8, rng)
    boards[0][1]["rare"] = [9.0]
    for _, scores in boards:
        scores["twin"] = scores["good"]
    found = overall(boards)
    assert set(found) == {"good", "twin", "bad"}
    assert found["good"].rank == found["twin"].rank == 1
    assert found["good"].wins == pytest.approx(found["twin"].wins)
    assert set(overall(boards[:3])) == {"good", "twin", "bad"}, "all of three tasks are enough"
    assert overall([]) == {}


def test_the_order_is_that_of_the_largest_suite_if_it_has_enough_tasks(monkeypatch):
    suites, _ = read_suites(["quick", "fair"], RESULTS)
    every, alone = front.matrix(suites), front.matrix(suites[:1])
    assert every.leading == alone.leading == ""
    assert places(every) != places(alone)
    monkeypatch.setattr(front, "FEWEST", len({task.task for task in suites[0].board.tasks}))
    led = front.matrix(suites)
    assert led.leading == suites[0].name
    assert places(led) == places(alone)
    assert led.columns == every.columns


def places(found):
    return {line.name: line.overall for line in found.lines if line.overall}
