"""What a board says of tuning: unequal effort is not ranked, edges are flagged, cost is added up."""

from __future__ import annotations

import random

import pytest

from harness import board
from harness.board import plots, tables
from harness.board.page import page
from harness.board.tuning import at_edge, best_of

NAMES = ("lstm", "s4d", "pre_ln")
RATES = {"low": 1e-4, "high": 1e-2, "log": True}
SPACE = {"lr": RATES, "weight_decay": [0.01, 0.1], "dropout": {"low": 0.0, "high": 0.3, "log": False}}


@pytest.fixture
def tried(plant):
    """Trials of one architecture: (lr, dropout, score, or None for one that diverged); a grid, unless given a space."""

    def make(name, points, space=None, **changes):
        made = []
        for i, (lr, dropout, score) in enumerate(points):
            one = plant(name, 1000, score, run_id=f"{name}-trial-{i}", status="ok" if score else "diverged", **changes)
            one["spec"] |= {"kind": "trial", "train": {"lr": lr, "weight_decay": 0.1}, "options": {"dropout": dropout}}
            one["spec"]["evaluate"] = {"split": "valid"}
            one["spec"]["stop"] = {"tokens": 200_000}
            one["budget"]["used"] |= {"flops": 4e11, "seconds": 6.0}
            if space:
                one["spec"]["tuning"] = {"sampler": "tpe", "space": space, "trial": i}
            made.append(one)
        return made

    return make


POINTS = [(1e-3, 0.0, 2.2), (3e-3, 0.1, 2.0), (8e-3, 0.2, None), (2e-3, 0.15, 2.1)]


def finals(three, dropout=0.1):
    for record in three:
        record["spec"]["options"] = {"dropout": dropout}
    return three


def only(records, **kwargs):
    (task,) = board.make("quick", records, [], **kwargs).tasks
    return task, {row.architecture: row for row in task.rows}


def test_equal_effort_is_ranked_and_its_cost_added_up(three, tried):
    trials = [t for name in NAMES for t in tried(name, POINTS, SPACE)]
    task, rows = only([*finals(three), *trials])
    assert all(row.ranked for row in rows.values())
    assert (rows["lstm"].trials, rows["lstm"].tuning_flops, rows["lstm"].tuning_seconds) == (4, 1.6e12, 24.0)
    assert plots.total_cost(rows["lstm"]) == 2.4e12 + 4 * 4e11
    assert plots.total_cost(rows["lstm"], counted=False) == pytest.approx(31.2 + 24)
    assert "tuning: 4 trials per architecture, chosen on the validation split" in task.notes
    assert "tuning cost: 12 trials, 3 of them failed, 4.8TFLOP and 1m12s of training in all" in task.notes
    searched = "searched by tpe: lr 0.0001 to 0.01 (log); weight_decay 0.01, 0.1; dropout 0 to 0.3"
    assert searched in task.notes
    assert next(c for c in tables.columns(task) if c.title == "tuning").text(rows["lstm"]) == "1.6 TFLOP"


@pytest.mark.parametrize(
    ("points", "space", "changes", "reason"),
    [
        (POINTS[:3], SPACE, {}, "number of trials: 3, others 4"),
        ([], SPACE, {}, "number of trials: 0, others 4"),
        (POINTS, SPACE | {"lr": RATES | {"high": 0.1}}, {}, "space"),
        (POINTS, None, {}, "space"),
        (POINTS, SPACE, {"sampler": "random"}, "sampler"),
        (POINTS, SPACE, {"stop": {"tokens": 400_000}}, "length of trials"),
        (POINTS, SPACE, {"split": "tune"}, "split"),
    ],
)
def test_unequal_effort_is_not_ranked(three, tried, points, space, changes, reason):
    odd = tried("lstm", points, space)
    for one in odd:
        if "sampler" in changes:
            one["spec"]["tuning"]["sampler"] = "random"
        if "stop" in changes:
            one["spec"]["stop"] = changes["stop"]
        if "split" in changes:
            one["spec"]["evaluate"] = {"split": "tune"}
    trials = [t for name in NAMES[1:] for t in tried(name, POINTS, SPACE)] + odd
    records = [*finals(three), *trials]
    task, rows = only(records)
    assert rows["lstm"].reason == f"tuning differs from the others' in the {reason}"
    assert [row.architecture for row in task.rows] == ["s4d", "pre_ln", "lstm"]
    assert [row.ranked for row in task.rows] == [True, True, False]
    random.Random(0).shuffle(records)
    assert only(records)[0] == task


def test_two_that_differ_rank_nobody(three, tried):
    two = [r for r in finals(three) if r["spec"]["architecture"] != "pre_ln"]
    _, rows = only([*two, *tried("lstm", POINTS, SPACE), *tried("s4d", POINTS[:2], SPACE)])
    assert {r.reason for r in rows.values()} == {"tuning differs and no majority agrees on the number of trials"}


def test_a_grid_is_compared_by_its_points(three, tried):
    grid = [(lr, drop, 2.0) for lr in (1e-3, 3e-3, 1e-2) for drop in (0.0, 0.1, 0.2)]
    other = [(lr, drop, 2.0) for lr in (1e-3, 3e-3, 2e-2) for drop in (0.0, 0.1, 0.2)]
    trials = [*tried("lstm", grid), *tried("s4d", grid), *tried("pre_ln", other)]
    task, rows = only([*finals(three), *trials])
    assert rows["pre_ln"].reason == "tuning differs from the others' in the space"
    assert rows["lstm"].ranked
    same = [*tried("lstm", grid), *tried("s4d", grid), *tried("pre_ln", grid)]
    task, rows = only([*finals(three), *same])
    assert "searched by grid: lr 0.001, 0.003, 0.01; dropout 0, 0.1, 0.2" in task.notes
    assert not [note for note in task.notes if "edge" in note]


def test_an_option_given_by_hand_is_no_part_of_the_space(three, tried):
    """One row has a dropout of its own; only learning rates were tuned."""
    drops = {"lstm": 0.3, "s4d": 0.0, "pre_ln": 0.0}
    trials = [t for n in NAMES for t in tried(n, [(lr, drops[n], 2.0) for lr in (1e-3, 3e-3, 1e-2)])]
    task, rows = only([*finals(three), *trials])
    assert all(row.ranked for row in rows.values())
    assert not [note for note in task.notes if "edge" in note]


def test_the_best_at_an_edge_is_flagged_in_every_dimension(three, tried):
    trials = [t for name in NAMES for t in tried(name, POINTS, SPACE)]
    for record in three:
        rate = {"lstm": 0.0085, "s4d": 0.003, "pre_ln": 0.0001}[record["spec"]["architecture"]]
        record["spec"]["train"] |= {"lr": rate, "weight_decay": 0.1}
    task, _ = only([*finals(three, dropout=0.29), *trials])
    notes = [note for note in task.notes if "edge" in note]
    assert notes == [
        "best learning rate at the edge of its range: lstm 0.0085, pre_ln 0.0001",
        "best weight decay at the edge of its grid: lstm 0.1, pre_ln 0.1, s4d 0.1",
        "best dropout at the edge of its range: lstm 0.29, pre_ln 0.29, s4d 0.29",
    ]


@pytest.mark.parametrize(
    ("value", "values", "at"),
    [
        (1e-3, [1e-3], False),
        (1e-3, [1e-3, 1e-2], True),
        (3e-3, [1e-3, 3e-3, 1e-2], False),
        (10**-3.89, RATES, False),  # 5.5% of two decades from the lower end
        (10**-3.91, RATES, True),
        (10**-2.09, RATES, True),
        (10**-2.11, RATES, False),
        (0.016, {"low": 0.0, "high": 0.3, "log": False}, False),
        (0.014, {"low": 0.0, "high": 0.3, "log": False}, True),
        (0.286, {"low": 0.0, "high": 0.3, "log": False}, True),
    ],
)
def test_what_is_an_edge(value, values, at):
    assert at_edge(value, values) is at


def test_best_of_k_by_hand_and_as_a_plot(three, tried):
    records = [*finals(three), *(t for name in NAMES for t in tried(name, POINTS[:3], SPACE))]
    task, _ = only(records)
    trials = [r for r in records if r["spec"]["kind"] == "trial"]
    # 2.2, 2.0 and one that failed, which counts as 2.2: one of three is 2.0, two of three pairs hold it
    hand = [(2.2 + 2.0 + 2.2) / 3, (2.0 + 2.0 + 2.2) / 3, 2.0]
    assert best_of(task, trials)["lstm"] == pytest.approx(hand)
    shown = page(board.make("quick", records, []), records)
    assert shown.count("<svg") == 4
    assert "Expected best of k trials" in shown
    assert "compute to tune and to train one seed" in shown
    assert best_of(task, trials[:2]) == {}


def test_no_tuning_is_told(three):
    made = board.make("quick", three, [])
    assert made.notes == ["hyperparameters were not tuned per architecture"]
    (task,) = made.tasks
    assert all((row.trials, row.tuning_flops, row.reason) == (None, None, "") for row in task.rows)
    assert "tuning" not in [column.title for column in tables.columns(task)]
    assert "compute to train one seed" in page(made, three)


def test_unequal_machines_add_up_no_seconds(three, tried):
    trials = [t for name in NAMES for t in tried(name, POINTS, SPACE)]
    trials[0]["provenance"]["hardware"] = "H100"
    _, rows = only([*finals(three), *trials])
    assert [rows[n].tuning_seconds for n in NAMES] == [None, 24.0, 24.0]


def test_defaults_are_listed_where_records_have_them(three):
    slow = {"what": "lr_max", "value": 1e-3, "parameters": 1200, "names": ["log_dt", "B"]}
    smooth = {"what": "label_smoothing", "value": 0.1, "parameters": 5000, "names": []}
    for record in three:
        if record["spec"]["architecture"] != "pre_ln":
            record["defaults"] = [slow, smooth] if record["spec"]["architecture"] == "s4d" else []
    made = board.make("quick", three, [])
    said = ["lr ≤ 0.001 for log_dt, B (1.2k parameters)", "label smoothing 0.1 (5k parameters)"]
    assert made.defaults == {"lstm": [], "s4d": said}
    assert "defaults of their own, not set by the suite, and listed on the page: lstm 0, s4d 2" in made.notes
    shown = page(made, three)
    assert "<dt>s4d</dt><dd>lr ≤ 0.001 for log_dt, B (1.2k parameters); label smoothing" in shown
    assert "- **lstm**: nothing" in tables.markdown(made)
