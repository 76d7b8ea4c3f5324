"""What a board says of tuning: unequal effort is not ranked, edges are flagged, cost is added up."""

import itertools
import math
import statistics

import pytest

from harness import board
from harness.board import formats, sections
from harness.board.tuning import at_edge, best_of, expected_best
from harness.records.meters import StopRule
from harness.records.record import Override
from harness.records.spec import Search
from harness.table.rows import total_cost
from tests.harness.board.conftest import by_name
from tests.harness.planted import change, plant

NAMES = ("lstm", "s4d", "pre_ln")
RATES = {"low": 1e-4, "high": 1e-2, "log": True}
SPACE = {"lr": RATES, "weight_decay": [0.01, 0.1], "dropout": {"low": 0.0, "high": 0.3, "log": False}}
POINTS = [(1e-3, 0.0, 2.2), (3e-3, 0.1, 2.0), (8e-3, 0.2, None), (2e-3, 0.15, 2.1)]


def tried(name, points, space=None, **changes):
    """Trials of one architecture: (lr, dropout, score, or None for one that diverged); a grid, unless given a space."""
    trials = [
        plant(
            name, 1000, score, run_id=f"{name}-trial-{i}", status="ok" if score else "diverged",
            spec__kind="trial", spec__train__lr=lr, spec__options={"dropout": dropout}, spec__evaluate__split="valid",
            spec__stop=StopRule("tokens", 200_000), spec__tuning=Search("tpe", space, i) if space else None,
            budget__used__tokens=200_000, budget__used__flops=4 * 10**11, budget__used__seconds=6.0,
        )
        for i, (lr, dropout, score) in enumerate(points)
    ]  # fmt: skip
    return [change(trial, **changes) for trial in trials]


def finals(three, dropout=0.1):
    return [change(r, spec__options={"dropout": dropout}) for r in three]


def only(records):
    (task,) = board.make("quick", records, []).tasks
    return task, by_name(task.rows)


def test_equal_effort_is_ranked_and_its_cost_added_up(three):
    task, rows = only([*finals(three), *(t for name in NAMES for t in tried(name, POINTS, SPACE))])
    assert all(row.ranked for row in rows.values())
    assert (rows["lstm"].trials, rows["lstm"].tuning_flops, rows["lstm"].tuning_seconds) == (4, 1.6e12, 24.0)
    assert total_cost(rows["lstm"]) == 2.4e12 + 4 * 4e11
    assert total_cost(rows["lstm"], counted=False) == pytest.approx(31.2 + 24)
    assert "tuning: 4 trials per architecture, chosen on the validation split" in task.notes
    assert "tuning cost: 12 trials, 3 of them failed, 4.8TFLOP and 1m12s of training in all" in task.notes
    assert "searched by tpe: lr 0.0001 to 0.01 (log); weight_decay 0.01, 0.1; dropout 0 to 0.3" in task.notes
    column = next(c for c in sections.task_columns(task) if c.title == "tuning")
    assert column.cell(rows["lstm"]).text == "1.6 TFLOP"


@pytest.mark.parametrize(
    ("points", "space", "changes", "reason"),
    [
        (POINTS[:3], SPACE, {}, "number of trials: 3, others 4"),
        ([], SPACE, {}, "number of trials: 0, others 4"),
        (POINTS, SPACE | {"lr": RATES | {"high": 0.1}}, {}, "space"),
        (POINTS, None, {}, "space"),
        (POINTS, SPACE, {"spec__tuning__sampler": "random"}, "sampler"),
        (POINTS, SPACE, {"spec__stop": StopRule("tokens", 400_000)}, "length of trials"),
        (POINTS, SPACE, {"spec__evaluate__split": "tune"}, "split"),
    ],
)
def test_unequal_effort_is_not_ranked(three, points, space, changes, reason):
    odd = tried("lstm", points, space, **changes)
    task, rows = only([*finals(three), *(t for name in NAMES[1:] for t in tried(name, POINTS, SPACE)), *odd])
    assert rows["lstm"].reason == f"tuning differs from the others' in the {reason}"
    assert [(row.architecture, row.ranked) for row in task.rows] == [("s4d", True), ("pre_ln", True), ("lstm", False)]


def test_two_that_differ_rank_nobody(three):
    two = [r for r in finals(three) if r.spec.architecture != "pre_ln"]
    _, rows = only([*two, *tried("lstm", POINTS, SPACE), *tried("s4d", POINTS[:2], SPACE)])
    assert {r.reason for r in rows.values()} == {"tuning differs and no majority agrees on the number of trials"}


def test_a_grid_is_compared_by_its_points(three):
    grid, other = ([(lr, drop, 2.0) for lr in (1e-3, 3e-3, end) for drop in (0.0, 0.1, 0.2)] for end in (1e-2, 2e-2))
    both = [*finals(three), *tried("lstm", grid), *tried("s4d", grid)]
    _, rows = only([*both, *tried("pre_ln", other)])
    assert rows["pre_ln"].reason == "tuning differs from the others' in the space"
    assert rows["lstm"].ranked
    task, _ = only([*both, *tried("pre_ln", grid)])
    assert "searched by grid: lr 0.001, 0.003, 0.01; dropout 0, 0.1, 0.2" in task.notes
    assert not [note for note in task.notes if "edge" in note]


def test_an_option_given_by_hand_is_no_part_of_the_space(three):
    """One row has a dropout of its own; only learning rates were tuned, and none is unranked by its name."""
    drops = {"lstm": 0.3, "s4d": 0.0, "pre_ln": 0.0}
    trials = [t for n in NAMES for t in tried(n, [(lr, drops[n], 2.0) for lr in (1e-3, 3e-3, 1e-2)])]
    task, rows = only([*finals(three), *trials])
    assert all(row.ranked for row in rows.values())
    assert not [note for note in task.notes if "edge" in note]


def test_the_best_at_an_edge_is_flagged_in_every_dimension(three):
    trials = [t for name in NAMES for t in tried(name, POINTS, SPACE)]
    rates = {"lstm": 0.0085, "s4d": 0.003, "pre_ln": 0.0001}
    own = [change(r, spec__train__lr=rates[r.spec.architecture]) for r in finals(three, dropout=0.29)]
    task, _ = only([*own, *trials])
    assert [note for note in task.notes if "edge" in note] == [
        "best learning rate at the edge of its range: lstm 0.0085, pre_ln 0.0001",
        "best weight decay at the edge of its grid: lstm 0.1, pre_ln 0.1, s4d 0.1",
        "best dropout at the edge of its range: lstm 0.29, pre_ln 0.29, s4d 0.29",
    ]


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        ([1e-3], {1e-3: False}),
        ([1e-3, 1e-2], {1e-3: True}),
        ([1e-3, 3e-3, 1e-2], {3e-3: False}),
        (RATES, {10**-3.89: False, 10**-3.91: True, 10**-2.09: True, 10**-2.11: False}),  # 5.5% and 4.5% of 2 decades
        (SPACE["dropout"], {0.016: False, 0.014: True, 0.286: True}),
    ],
)
def test_what_is_an_edge(values, edges):
    assert {value: at_edge(value, values) for value in edges} == edges


def test_best_of_k_by_hand(three):
    trials = [t for name in NAMES for t in tried(name, POINTS[:3], SPACE)]
    records = [*finals(three), *trials]
    task, _ = only(records)
    # 2.2, 2.0 and one that failed, which counts as 2.2: one of three is 2.0, two of three pairs hold it
    hand = [(2.2 + 2.0 + 2.2) / 3, (2.0 + 2.0 + 2.2) / 3, 2.0]
    assert best_of(task, trials)["lstm"] == pytest.approx(hand)
    assert best_of(task, trials[:2]) == {}


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("values", [[], [3.0], [0.1, 0.7, 0.4], [2.0, -1.0, 2.0, 0.5, 9.0], [1.5] * 4])
def test_the_expected_best_is_the_mean_over_all_choices(values, higher):
    best = max if higher else min
    counted = [statistics.fmean(map(best, itertools.combinations(values, k))) for k in range(1, len(values) + 1)]
    assert expected_best(values, higher_is_better=higher) == pytest.approx(counted, abs=1e-12)


def test_the_expected_best_of_many_trials():
    values = [math.sin(i) for i in range(60)]
    found = expected_best(values, higher_is_better=True)
    assert (found[0], found[-1]) == pytest.approx((statistics.fmean(values), max(values)))
    assert found == sorted(found)


def test_without_trials_there_is_no_column_for_them(three):
    task, rows = only(three)
    assert {(row.trials, row.tuning_flops, row.reason) for row in rows.values()} == {(None, None, "")}
    assert "tuning" not in [column.title for column in sections.task_columns(task)]


def test_unequal_machines_add_up_no_seconds(three):
    trials = [t for name in NAMES for t in tried(name, POINTS, SPACE)]
    _, rows = only([*finals(three), change(trials[0], provenance__hardware="H100"), *trials[1:]])
    assert [rows[n].tuning_seconds for n in NAMES] == [None, 24.0, 24.0]


def test_defaults_are_listed_where_records_have_them(three):
    slow = Override("lr_max", 1e-3, 1200, ("log_dt", "B"))
    smooth = Override("label_smoothing", 0.1, 5000)
    known = {"pre_ln": None, "s4d": [slow, smooth], "lstm": []}
    records = [change(r, defaults=known[r.spec.architecture]) for r in three]
    made = board.make("quick", records, [])
    said = ["lr ≤ 0.001 for log_dt, B (1.2k parameters)", "label smoothing 0.1 (5k parameters)"]
    assert made.defaults == {"lstm": [], "s4d": said}
    assert (
        "defaults of their own, not set by the suite, and listed on its page of the site: lstm 0, s4d 2" in made.notes
    )
    assert "- **lstm**: nothing" in formats.markdown(made)
