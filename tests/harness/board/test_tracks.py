"""Tracks side by side: tables apart, reversals, agreement and targets, on planted records with answers by hand."""

import pytest

from harness import board
from harness.board import formats, tracks
from harness.records.meters import StopRule
from tests.harness.board.conftest import NOISE, text_of
from tests.harness.planted import change, plant

MEANS = {
    "params": {"lstm": 2.0, "s4d": 3.0, "pre_ln": 3.5},
    "seconds": {"lstm": 3.5, "s4d": 3.0, "pre_ln": 2.0},
    "flops": {"lstm": 2.0, "s4d": 2.0, "pre_ln": 3.5},
}
STOPS = {"params": StopRule("tokens", 1e6), "seconds": StopRule("seconds", 30.0), "flops": StopRule("flops", 3e12)}
ORDER = [("text", track) for track in MEANS]
RECORDS = [
    plant(
        name, seed, mean + 0.1 * seed + NOISE[name][seed],
        spec__stop=STOPS[track], spec__track=track, run_id=f"{name}-{seed}-{track}",
    )
    for track, means in MEANS.items() for name, mean in means.items() for seed in range(3)
]  # fmt: skip


def contrasts_of(records):
    return board.make("fair", records, [], order=ORDER).contrasts


def test_tracks_are_ranked_apart():
    made = board.make("fair", RECORDS, [], order=ORDER)
    assert [task.title for task in made.tasks] == ["text · params", "text · seconds", "text · flops"]
    order = ["lstm", "s4d", "pre_ln"]
    assert [[row.architecture for row in task.rows] for task in made.tasks] == [order, order[::-1], order]
    assert {row["track"] for row in made.to_rows()} == set(MEANS)
    size = "400k parameters without embeddings (±5%)"
    ends = ["1M training tokens", "30 s of training", "3TFLOP of training"]
    assert [task.equal for task in made.tasks] == [f"{size}, {end}" for end in ends]


def test_ranks_reversals_and_agreement_by_hand():
    (contrast,) = contrasts_of(RECORDS)
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


def test_what_is_no_reversal():
    (contrast,) = contrasts_of([r for r in RECORDS if r.spec.track != "seconds"])
    assert (contrast.reversals, contrast.undecided) == ([], 1), "one track cannot tell a pair apart"
    assert "no two architectures are separated one way" in tracks.notes(contrast)[0]
    assert contrasts_of([r for r in RECORDS if r.spec.track == "flops"]) == []


def test_a_row_that_is_not_ranked_has_no_rank():
    off = [change(r, size__mismatch=0.2) if r.spec.cell == ("s4d", "text", "flops") else r for r in RECORDS]
    assert contrasts_of(off)[0].places["s4d"] == [(2, 2), (2, 2), None]


def test_every_format_has_it():
    made = board.make("fair", RECORDS, [], order=ORDER)
    text = formats.markdown(made)
    for shown in (text, text_of(made, width=120)):
        assert "text by what is held equal" in shown
        assert "lstm above pre_ln in params, flops; below it in seconds" in " ".join(shown.split())
    assert "| lstm | 1 | 3 | 1–2 |" in text


def test_targets_rank_by_what_was_used_and_say_who_did_not_reach_them():
    used = {"lstm": (10.0, 11.0, 10.5), "s4d": (20.0, 21.0, 20.0), "pre_ln": (30.0, 29.0, 31.0)}
    records = [
        plant(
            name, seed, 2.5, spec__stop=StopRule("seconds", 60.0, target=2.6),
            budget__used__seconds=second, budget__reached=(name, seed) != ("pre_ln", 1),
        )
        for name, seconds in used.items() for seed, second in enumerate(seconds)
    ]  # fmt: skip
    (task,) = board.make("race", records, [{"task_label": "text", "name": "xz", "value": 2.1}]).tasks
    assert (task.metric, task.unit, task.higher_is_better) == ("seconds to bits_per_byte 2.6", "s", False)
    assert [(row.architecture, row.mean) for row in task.ranked] == [("lstm", 10.5), ("s4d", pytest.approx(61 / 3))]
    assert task.rows[-1].reason == "did not reach 2.6 (seed 1)"
    assert task.lines == []
    assert task.equal.endswith("until valid reaches 2.6, at most 60 s of training")
