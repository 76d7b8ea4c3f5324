"""Planted records over several tasks: what the board says over them, worked out by hand, and what never moves it."""

from __future__ import annotations

import copy
import io
import json
import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness import board
from harness.board import grids, tables
from harness.board.across import build, show
from harness.board.page import page

TASKS = {"text": (False, 8.0), "recall": (True, 0.1), **{f"t{i}": (True, 0.0) for i in range(4)}}
SCORES = {
    "ref": {"text": (3.0, 3.1, 2.9), "recall": (0.5, 0.6, 0.4)},
    "good": {"text": (2.0, 2.0, 2.0), "recall": (0.9, 0.9, 0.9)},
    "half": {"text": (2.5, 2.5, 2.5)},
}
BASELINES = [
    {"task_label": "text", "metric": "score", "name": "bigram", "value": 4.0, "about": ""},
    {"task_label": "text", "metric": "score", "name": "xz", "value": 3.12, "about": ""},
]


def curve(scores, rate):
    return [
        {"tokens": 100 * i, "seconds": i * rate, "flops": 1e9 * i, "loss": 1.0, "valid": {"score": score}}
        for i, score in enumerate(scores, 1)
    ]


def run(plant, architecture, task, seed, score, rate=1.0, **changes):
    """A run scored on `valid` at 100 to 300 tokens, halfway, nearly and fully at its end."""
    higher, chance = TASKS[task]
    start = chance
    points = [start + share * (score - start) for share in (0.5, 0.9, 1.0)]
    record = plant(architecture, seed, score, **changes)
    record["run_id"] = f"{architecture}-{task}-{seed}"
    record["spec"] |= {"task": task, "task_label": task}
    record["metrics"] = {
        "primary": "score",
        "higher_is_better": higher,
        "chance": chance,
        "unit": "",
        "valid": {"score": score},
        "test": {"score": score},
    }
    record["curve"] = curve(points[:-1], rate)
    record["budget"] = {"used": {"tokens": 300, "steps": 3, "flops": 3e9, "seconds": 3 * rate}}
    return record


@pytest.fixture
def records(plant):
    found = [
        run(plant, a, task, seed, score, rate=0.5 if a == "good" else 1.0)
        for a, by_task in SCORES.items()
        for task, scores in by_task.items()
        for seed, score in enumerate(scores)
    ]
    return found + [
        run(plant, "half", "recall", seed, 0.0, status="unsupported") | {"metrics": {}, "curve": []}
        for seed in range(3)
    ]


def made_of(records, reference="ref", targets=None, baselines=BASELINES):
    return board.make("planted", records, baselines, reference=reference, targets=targets)


def across_of(*args, **kwargs):
    (found,) = made_of(*args, **kwargs).across
    return found


def by_name(rows):
    return {row.architecture: row for row in rows}


def test_normalised_scores_and_their_mean_by_hand(records):
    found = across_of(records)
    # ref's text runs, 2.9 to 3.1, are better than xz, 3.12; its interval, 3 ± 4.303·.1/√3 = 3 ± .248, is not
    assert [(s.task, s.zero_name, s.zero, s.one) for s in found.scales] == [
        ("recall", "chance", 0.1, pytest.approx(0.5)),
        ("text", "bigram", 4.0, pytest.approx(3.0)),
    ]
    rows = by_name(found.rows)
    assert rows["good"].normalised == {"recall": pytest.approx([2.0] * 3), "text": pytest.approx([2.0] * 3)}
    assert rows["ref"].normalised["recall"] == pytest.approx([1, 1.25, 0.75])
    assert rows["half"].normalised == {"recall": [], "text": pytest.approx([1.5] * 3)}
    # half: its missing task is 0 with half of all weight: of the middle half, ¼ at 0 and ¼ at 1.5
    assert [(row.architecture, row.iqm) for row in found.rows] == [
        ("good", pytest.approx(2)),
        ("ref", pytest.approx(1)),
        ("half", pytest.approx(0.75)),
    ]
    assert {a: row.mean for a, row in rows.items()} == pytest.approx({"good": 2, "ref": 1, "half": 0.75})
    assert (rows["good"].low, rows["good"].high) == pytest.approx((2, 2))


def test_what_is_missing_is_last_counted_and_told(records):
    found = across_of(records)
    rows = by_name(found.rows)
    assert {a: row.rank for a, row in rows.items()} == {"good": 1, "half": 2.5, "ref": 2.5}
    assert (rows["half"].scored, rows["half"].missing) == (1, {"recall": "unsupported"})
    assert any("1 of 6 results are missing" in n and "unsupported: half on recall" in n for n in found.notes)
    chances = {(i.first, i.second): i.probability for i in found.improvements}
    assert chances["half", "ref"] == pytest.approx(0.5)  # wins on text, lost on recall
    assert chances["good", "half"] == 1
    race = by_name(found.race.rows)
    assert race["half"].times["recall"] is None
    console = Console(width=100, file=io.StringIO(), color_system=None)
    board.render(made_of(records), console)
    shown = console.file.getvalue()
    assert "1/2" in shown
    assert "unsupported: half on recall" in " ".join(shown.split())


def test_a_row_that_is_not_ranked_or_not_run_has_no_score(records, plant):
    cheat = [run(plant, "cheat", "text", s, 0.1, eligibility__ranked=False) for s in range(3)]
    row = by_name(across_of([*records, *cheat]).rows)["cheat"]
    assert row.missing == {"recall": "not run", "text": "not ranked"}
    assert (row.iqm, row.rank, row.scored) == (0, 3.75, 0)  # last of 4 on text; shares 3 and 4 on recall


def test_times_by_hand(records):
    race = across_of(records, targets={"text": 3.5}).race
    assert [(t.task, t.value, t.source) for t in race.targets] == [("recall", 0.5, "ref"), ("text", 3.5, "suite")]
    rows = by_name(race.rows)
    # ref on text: 0.9 of the way from 8 is 3.5, 3.59, 3.41 in seeds 0, 1, 2: at 2 s, 3 s, 2 s
    assert rows["ref"].times == {"recall": 3.0, "text": 2.0}
    # good: on recall .5 at 0.5 s and .82 at 1 s; on text 5 and then 2.6; ratios 1/3 and 1/2 (its halfway .5 arrives)
    assert rows["good"].times == {"recall": 0.5, "text": 1.0}
    assert rows["good"].ratios == pytest.approx({"recall": 0.5 / 3, "text": 0.5})
    assert rows["good"].score == pytest.approx((4 - 0.5 / 3 + 3.5) / 6)
    assert rows["good"].score_to_best == 1
    assert rows["ref"].score == 1
    assert rows["ref"].score_to_best == pytest.approx((0 + 2) / 6)
    # half: 0.9 of the way to 2.5 is 3.05: at 2 s; never on recall
    assert rows["half"].times == {"recall": None, "text": 2.0}
    assert (rows["half"].score, rows["half"].reached) == (0.5, 1)
    assert [row.architecture for row in race.rows] == ["good", "ref", "half"]


def test_a_run_that_never_arrives_takes_part(records, plant):
    slow = [run(plant, "slow", "text", s, (3.0, 3.0, 6.0)[s]) for s in range(3)]
    slower = [run(plant, "slower", "text", s, (3.0, 6.0, 6.0)[s]) for s in range(3)]
    race = by_name(across_of([*records, *slow, *slower], targets={"text": 3.0}).race.rows)
    assert race["slow"].times["text"] == 3.0
    assert race["slower"].times["text"] is None


def test_a_reference_that_misses_the_target_is_told(records):
    race = across_of(records, targets={"text": 2.2}).race
    rows = by_name(race.rows)
    assert rows["ref"].ratios["text"] is None
    assert rows["good"].ratios["text"] == 0
    assert any("does not reach the target" in note and note.endswith("text") for note in race.notes)


def test_the_meter_is_the_fairest_there_is(records):
    assert across_of(records).race.meter.startswith("seconds")
    records[0]["provenance"]["hardware"] = "another"
    race = across_of(records).race
    assert race.meter.startswith("FLOPs")
    assert by_name(race.rows)["ref"].times["recall"] == 3e9
    for record in records:
        if record["status"] == "ok":
            record["speed"]["relative"] = 2.0 if record["spec"]["architecture"] == "good" else 1.0
    race = across_of(records).race
    assert by_name(race.rows)["ref"].times["recall"] == 300
    assert by_name(race.rows)["good"].times["recall"] == 50


def test_without_a_reference_the_best_rows_serve_and_it_says_so(records):
    found = across_of(records, reference="")
    assert {s.one_name for s in found.scales} == {"good"}
    assert {s.zero_name for s in found.scales} == {"chance", "xz"}
    assert any("names no reference" in note for note in found.notes)
    assert any("names none" in note for note in found.race.notes)


def test_a_reference_that_is_not_ranked_leaves_its_task_out_for_all(records):
    found = across_of(records, reference="half")
    assert [s.task for s in found.scales] == ["text"]
    assert any("not in the normalised scores" in note and note.endswith("recall") for note in found.notes)
    assert any("left out" in note and note.endswith("recall") for note in found.race.notes)
    nothing = across_of(records, reference="nobody")
    assert (nothing.scales, nothing.race) == ([], None)
    assert {row.iqm for row in nothing.rows} == {None}
    assert "no time to target: the reference" in nothing.notes[-1]
    assert "over 2 tasks" in page(made_of(records, reference="nobody"), records)


def test_one_task_has_a_race_and_nothing_else(records):
    found = across_of([r for r in records if r["spec"]["task"] == "text"])
    assert (found.rows, found.scales, found.improvements, found.ranking) == ([], [], [], None)
    assert [row.architecture for row in found.race.rows] == ["good", "half", "ref"]
    bare = [r | {"curve": [], "metrics": r["metrics"] | {"valid": {}}} for r in records if r["spec"]["task"] == "text"]
    assert made_of(bare, reference="").across == []
    assert "no time to target" in across_of(bare).notes[0]


def test_nothing_is_said_over_tasks_that_rows_do_not_share(records):
    apart = [r for r in records if (r["spec"]["architecture"], r["spec"]["task"]) != ("ref", "recall")]
    found = across_of(apart)
    assert (found.rows, found.race) == ([], None)
    assert found.notes == ["nothing is said over recall, text: only good has a score on every task"]
    assert "nothing is said over recall" in page(made_of(apart), apart)
    assert "## over 2 tasks\n\n- nothing is said" in grids.markdown(show.grids(found))


def test_tracks_never_meet(records, plant):
    """Two tables of one task, each of its own track: the second track's runs are three times as slow."""
    fast = [r for r in records if r["spec"]["task"] == "text"]
    slow = [run(plant, "ref", "text", s, 3.0, rate=3.0) for s in range(3)]
    for track, runs in (("first", fast), ("second", slow)):
        for record in runs:
            record["spec"]["track"] = track
            record["run_id"] += track
    found = build.make(made_of([*fast, *slow]).tasks, [*fast, *slow], "ref")
    assert [(a.track, a.tasks, a.rows) for a in found] == [("first", ["text"], []), ("second", ["text"], [])]
    assert [by_name(a.race.rows)["ref"].times["text"] for a in found] == [3, 9]
    assert [show.grids(a)[0].title for a in found] == ["time to target (first)", "time to target (second)"]


def test_nobody_is_separated_where_friedman_sees_no_difference(records, monkeypatch):
    monkeypatch.setattr(build.stats, "critical_difference", lambda *_: 0.1)
    monkeypatch.setattr(build.stats, "friedman", lambda ranked: (9.0, 0.01))
    assert across_of(records).ranking.groups == [["half", "ref"]]
    monkeypatch.setattr(build.stats, "friedman", lambda ranked: (3.0, 0.2))
    assert across_of(records).ranking.groups == [["good", "half", "ref"]]


def test_friedman_and_its_limits(plant):
    """Three architectures in the same order on four tasks: χ² = 8, p = exp(−4); CD = 2.343·√(12/24)."""
    records = [
        run(plant, a, f"t{i}", s, score + s / 100) for a, score in (("a", 0.9), ("b", 0.5), ("c", 0.1))
        for i in range(4) for s in range(2)
    ]  # fmt: skip
    ranking = across_of(records, "", baselines=[]).ranking
    assert (ranking.statistic, ranking.p) == pytest.approx((8, math.exp(-4)))
    assert ranking.difference == pytest.approx(2.3437 * math.sqrt(0.5), abs=1e-3)
    assert ranking.groups == [["a", "b"], ["b", "c"]]
    few = across_of([r for r in records if r["spec"]["task"] in ("t0", "t1")], "", baselines=[])
    assert few.ranking.groups == [["a", "b", "c"]]
    assert few.ranking.tasks_to_tell == 3
    assert any("on fewer than 3 tasks" in note for note in few.notes)


def facts(found, names=None):
    """Everything but the names."""
    names = names or {}
    return {
        names.get(row.architecture, row.architecture): (row.iqm, row.low, row.high, row.mean, row.rank, row.scored)
        for row in found.rows
    }, {
        names.get(row.architecture, row.architecture): (row.score, row.score_to_best, row.reached)
        for row in (found.race.rows if found.race else [])
    }


def close(first, second):
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name])


drawn = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@drawn
@given(st.randoms(use_true_random=False))
def test_order_of_records_never_matters(records, shuffler):
    assert made_of(shuffler.sample(records, len(records))).across == made_of(records).across


@drawn
@given(st.permutations(["ref", "good", "half"]))
def test_names_never_matter(records, order):
    names = dict(zip(["ref", "good", "half"], order, strict=True))
    moved = copy.deepcopy(records)
    for record in moved:
        record["spec"]["architecture_label"] = names[record["spec"]["architecture_label"]]
    back = {new: old for old, new in names.items()}
    close(facts(across_of(moved, names["ref"]), back), facts(across_of(records)))


@drawn
@given(st.floats(0.01, 100), st.floats(-50, 50), st.booleans())
def test_an_affine_change_of_a_metric_moves_nothing(records, scale, shift, turned):
    """`turned`: so does a change of its direction."""
    sign = -scale if turned else scale
    moved, lines = copy.deepcopy(records), copy.deepcopy(BASELINES)

    def change(value):
        return sign * value + shift

    for record in moved:
        if record["spec"]["task"] == "text":
            metrics = record["metrics"]
            metrics |= {"higher_is_better": turned, "chance": change(metrics["chance"])}
            for scores in [metrics["valid"], metrics["test"], *(point["valid"] for point in record["curve"])]:
                scores["score"] = change(scores["score"])
    for line in lines:
        line["value"] = change(line["value"])
    close(facts(across_of(moved, baselines=lines)), facts(across_of(records)))


@drawn
@given(st.floats(0.2, 7.9), st.floats(0, 1), st.floats(0.1, 9), st.sampled_from(["ok", "diverged"]))
def test_a_rival_moves_nobody_measured_by_a_fixed_reference(records, plant, text, recall, rate, status):
    rival = [run(plant, "rival", "text", s, text, rate, status=status) for s in range(3)]
    rival += [run(plant, "rival", "recall", s, recall, rate) for s in range(3)]
    before, after = across_of(records), across_of([*records, *rival])
    rows = by_name(after.rows)
    for row in before.rows:
        now = rows[row.architecture]
        assert (row.iqm, row.low, row.high, row.normalised) == (now.iqm, now.low, now.high, now.normalised)
    paces = by_name(after.race.rows)
    for pace in before.race.rows:
        assert (pace.score, pace.ratios, pace.times) == (paces[pace.architecture].score, pace.ratios, pace.times)
    pairs = {(i.first, i.second): i for i in after.improvements}
    assert all(pairs[i.first, i.second] == i for i in before.improvements)


def test_every_form_of_the_board_has_it(records, tmp_path):
    made = made_of(records)
    (stored,) = json.loads(tables.as_json(made))["across"]
    assert stored["reference"] == "ref"
    assert stored["race"]["rows"][-1]["times"]["recall"] is None
    assert len(made.to_rows()) == 3 + 1 + 3 + 3  # rows and lines of tasks only
    board.write(made, records, tmp_path)
    text, html = (tmp_path / "board.md").read_text(), (tmp_path / "index.html").read_text()
    for title in ("over 2 tasks", "time to target"):
        assert f"## {title}\n" in text
        assert f"<h2>{title}</h2>" in html
    assert "| good | 2.000 | \\[2.00, 2.00\\] | 2.000 | 1.00 | 2/2 | 1.00 \\[1.00, 1.00\\] |" in text
    assert html.count("<svg") == 2 * 3 + 3
    assert "critical difference" in html
    narrow = Console(width=60, file=io.StringIO(), color_system=None)
    grids.render(show.grids(made.across[0]), narrow)
    assert max(map(len, narrow.file.getvalue().splitlines())) <= 60


def test_old_or_thin_records_make_a_board(records):
    for record in random.Random(1).sample(records, 4):
        record.pop("curve", None)
        record["budget"] = {"used": {"steps": 3}}
        record["speed"] = None
    assert len(across_of(records).race.rows) == 3


def test_who_is_not_asked_to_play_a_task_is_not_counted_as_its_worst(records):
    made = board.make("quick", records, BASELINES, reference="ref", only={"recall": ["ref", "good"]})
    (found,) = made.across
    assert {row.architecture for row in found.rows} == {"ref", "good"}
    assert "not here, since the suite asks them some of the tasks only: half" in found.notes
    assert any(note.startswith("no result is missing") for note in found.notes)


def test_the_best_row_that_plays_all_tasks_is_the_reference_where_none_is_named(records, plant):
    """`extra` leads on recall, which is the only task the suite asks it."""
    extra = [run(plant, "extra", "recall", seed, 0.95 + seed / 100) for seed in range(3)]
    only = {"text": ["ref", "good", "half"]}
    (found,) = board.make("quick", [*records, *extra], BASELINES, only=only).across
    assert [target.reference for target in found.race.targets] == ["good", "good"]
    assert {row.architecture for row in found.race.rows} == {"ref", "good", "half"}
