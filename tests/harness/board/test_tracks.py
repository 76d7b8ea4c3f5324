"""Tracks side by side: tables apart, reversals, agreement and targets, on planted records with answers by hand."""

import io

import pytest
from rich.console import Console

from harness import board
from harness.board import grids, overall, tables, tracks
from harness.board.page import page

NOISE = {"lstm": (0.01, -0.02, 0.01), "s4d": (-0.01, 0.01, 0.0), "pre_ln": (0.0, 0.01, -0.01)}
MEANS = {
    "params": {"lstm": 2.0, "s4d": 3.0, "pre_ln": 3.5},
    "seconds": {"lstm": 3.5, "s4d": 3.0, "pre_ln": 2.0},
    "flops": {"lstm": 2.0, "s4d": 2.0, "pre_ln": 3.5},
}


@pytest.fixture
def records(plant):
    stops = {"params": {"tokens": 1_000_000}, "seconds": {"seconds": 30.0}, "flops": {"flops": 3e12}}
    found = []
    for track, means in MEANS.items():
        for name, mean in means.items():
            for seed in range(3):
                record = plant(name, seed, mean + 0.1 * seed + NOISE[name][seed], spec__stop=stops[track])
                record["spec"]["track"] = track
                record["run_id"] += track
                found.append(record)
    return found


ORDER = [("text", track) for track in MEANS]


def test_tracks_are_ranked_apart(records):
    made = board.make("fair", records, [], order=ORDER)
    assert [task.title for task in made.tasks] == ["text · params", "text · seconds", "text · flops"]
    assert [[row.architecture for row in task.rows] for task in made.tasks] == [
        ["lstm", "s4d", "pre_ln"],
        ["pre_ln", "s4d", "lstm"],
        ["lstm", "s4d", "pre_ln"],
    ]
    assert {row["track"] for row in made.to_rows()} == set(MEANS)
    size = "400k parameters without embeddings (±5%)"
    ends = ["1M training tokens", "30 s of training", "3TFLOP of training"]
    assert [task.equal for task in made.tasks] == [f"{size}, {end}" for end in ends]
    assert made == board.make("fair", records[::-1], [], order=ORDER)


def test_places_reversals_and_agreement_by_hand(records):
    (contrast,) = board.make("fair", records, [], order=ORDER).contrasts
    assert contrast.tracks == ["params", "seconds", "flops"]
    assert contrast.places == {
        "lstm": [(1, 1), (3, 3), (1, 2)],
        "s4d": [(2, 2), (2, 2), (1, 2)],
        "pre_ln": [(3, 3), (1, 1), (3, 3)],
    }
    found = {(r.first, r.second): (r.first_better, r.second_better) for r in contrast.reversals}
    assert found == {
        ("lstm", "pre_ln"): (["params", "flops"], ["seconds"]),
        ("lstm", "s4d"): (["params"], ["seconds"]),
        ("pre_ln", "s4d"): (["seconds"], ["params", "flops"]),
    }
    assert contrast.undecided == 0
    assert ("params", "seconds", -1.0) in contrast.agreement


def test_a_pair_that_one_track_cannot_tell_apart_is_no_reversal(records):
    two = [r for r in records if r["spec"]["track"] != "seconds"]
    (contrast,) = board.make("fair", two, [], order=ORDER).contrasts
    assert contrast.reversals == []
    assert contrast.undecided == 1
    assert "no two architectures are separated one way" in tracks.notes(contrast)[0]


def test_one_track_has_nothing_to_contrast(records):
    assert board.make("fair", [r for r in records if r["spec"]["track"] == "flops"], []).contrasts == []


def test_a_row_that_is_not_ranked_has_no_place(records):
    for record in records:
        if (record["spec"]["track"], record["spec"]["architecture"]) == ("flops", "s4d"):
            record["size"]["mismatch"] = 0.2
    (contrast,) = board.make("fair", records, [], order=ORDER).contrasts
    assert contrast.places["s4d"] == [(2, 2), (2, 2), None]


def test_it_is_shown_everywhere(records):
    made = board.make("fair", records, [], order=ORDER)
    text = tables.markdown(made) + grids.markdown(overall.grids(made))
    assert "| lstm | 1 | 3 | 1–2 |" in text
    assert "lstm above pre_ln in params, flops; below it in seconds" in text
    shown = page(made, records)
    assert "text by what is held equal" in shown
    assert 'aria-label="text places"' in shown
    stream = io.StringIO()
    board.render(made, Console(file=stream, width=120, color_system=None))
    assert "text by what is held equal" in stream.getvalue()
    assert "held equal: 400k parameters" in stream.getvalue()


def test_targets_rank_by_what_was_used_and_say_who_did_not_get_there(plant):
    used = {"lstm": (10.0, 11.0, 10.5), "s4d": (20.0, 21.0, 20.0), "pre_ln": (30.0, 29.0, 31.0)}
    records = []
    for name, seconds in used.items():
        for seed, second in enumerate(seconds):
            record = plant(name, seed, 2.5, spec__stop={"target": 2.6, "seconds": 60.0})
            record["budget"]["used"]["seconds"] = second
            record["budget"]["reached"] = (name, seed) != ("pre_ln", 1)
            records.append(record)
    (task,) = board.make("race", records, [{"task_label": "text", "name": "xz", "value": 2.1}]).tasks
    assert (task.metric, task.unit, task.higher_is_better) == ("seconds to bits_per_byte 2.6", "s", False)
    assert [(row.architecture, row.mean) for row in task.rows if row.ranked] == [
        ("lstm", 10.5),
        ("s4d", pytest.approx(61 / 3)),
    ]
    assert task.rows[-1].reason == "did not reach 2.6 (seed 1)"
    assert task.lines == []
