"""Planted records over several tasks: what the board says over them, worked out by hand, and what never moves it."""

import json
import math
import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import board
from harness.board import aggregate, formats, ranking, sections
from harness.errors import UserError
from harness.records.curves import Curve
from harness.records.files import to_json
from harness.records.meters import Meters
from harness.records.record import CurvePoint, Eligibility, Metrics, Speed
from tests.harness.board.conftest import by_name, text_of
from tests.harness.planted import change, plant

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


def run(architecture, task, seed, score, rate=1.0, **changes):
    """A run scored on `valid` at 100 to 300 tokens, halfway, nearly and fully at its end."""
    higher, chance = TASKS[task]
    scores = {"score": score}
    return change(
        plant(architecture, seed, score),
        run_id=f"{architecture}-{task}-{seed}",
        spec__task=task,
        spec__task_label=task,
        metrics=Metrics("score", (), higher, chance, "", scores, scores),
        curve=[
            CurvePoint(100 * i, i, 10**9 * i, i * rate, 1.0, {"score": chance + share * (score - chance)})
            for i, share in ((1, 0.5), (2, 0.9))
        ],
        budget__used=Meters(300, 3, 3 * 10**9, 3 * rate),
        **changes,
    )


def runs(architecture, task, scores, rate=1.0, **changes):
    return [run(architecture, task, seed, score, rate, **changes) for seed, score in enumerate(scores)]


RECORDS = [
    record
    for name, by_task in SCORES.items()
    for task, scores in by_task.items()
    for record in runs(name, task, scores, rate=0.5 if name == "good" else 1.0)
] + [
    change(plant("half", s, status="unsupported"), spec__task="recall", spec__task_label="recall", run_id=f"half-r-{s}")
    for s in range(3)
]


def made_of(records, reference="ref", targets=None, baselines=BASELINES, **more):
    return board.make("planted", records, baselines, reference=reference, targets=targets, **more)


def aggregate_of(*args, **kwargs):
    (found,) = made_of(*args, **kwargs).across
    return found


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    """No interval's width is asked here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregate.stats, "RESAMPLES", 200)
        yield


@cache
def unchanged():
    """The aggregate of `RECORDS`."""
    return aggregate_of(RECORDS)


def on(task):
    return [r for r in RECORDS if r.spec.task == task]


def test_normalised_scores_and_their_mean_by_hand():
    found = aggregate_of(RECORDS)
    # ref's text runs, 2.9 to 3.1, are better than xz, 3.12; its interval, 3 ± 4.303·.1/√3 = 3 ± .248, is not
    assert [(s.task, s.zero_name, s.zero, s.one) for s in found.scales] == [
        ("recall", "chance", 0.1, pytest.approx(0.5)),
        ("text", "bigram", 4.0, pytest.approx(3.0)),
    ]
    good, ref, half = found.rows
    assert [row.architecture for row in found.rows] == ["good", "ref", "half"]
    assert good.normalised == {"recall": pytest.approx([2.0] * 3), "text": pytest.approx([2.0] * 3)}
    assert ref.normalised["recall"] == pytest.approx([1, 1.25, 0.75])
    assert half.normalised == {"recall": [], "text": pytest.approx([1.5] * 3)}
    # half: its missing task is 0 with half of all weight: of the middle half, ¼ at 0 and ¼ at 1.5
    assert [row.iqm for row in found.rows] == [row.mean for row in found.rows] == pytest.approx([2, 1, 0.75])
    assert (good.low, good.high) == pytest.approx((2, 2))


def test_what_is_missing_is_last_counted_and_shown():
    cheat = runs("cheat", "text", (0.1,) * 3, eligibility=Eligibility())
    row = by_name(aggregate_of([*RECORDS, *cheat]).rows)["cheat"]
    assert row.missing == {"recall": "not run", "text": "not ranked"}
    assert (row.iqm, row.rank, row.scored) == (0, 3.75, 0)  # last of 4 on text; shares 3 and 4 on recall
    found = aggregate_of(RECORDS)
    rows = by_name(found.rows)
    assert {a: row.rank for a, row in rows.items()} == {"good": 1, "half": 2.5, "ref": 2.5}
    assert (rows["half"].scored, rows["half"].missing) == (1, {"recall": "unsupported"})
    assert any("1 of 6 results are missing" in n and "unsupported: half on recall" in n for n in found.notes)
    chances = {(i.first, i.second): i.probability for i in found.improvements}
    assert chances["half", "ref"] == pytest.approx(0.5)  # wins on text, lost on recall
    assert chances["good", "half"] == 1
    assert by_name(found.race.rows)["half"].times["recall"] is None
    assert "1/2" in text_of(made_of(RECORDS))


def test_times_by_hand():
    race = aggregate_of(RECORDS, targets={"text": 3.5}).race
    assert [(t.task, t.value, t.source) for t in race.targets] == [("recall", 0.5, "ref"), ("text", 3.5, "suite")]
    rows = by_name(race.rows)
    # ref on text: 0.9 of the way from 8 is 3.5, 3.59, 3.41 in seeds 0, 1, 2: at 2 s, 3 s, 2 s
    assert rows["ref"].times == {"recall": 3.0, "text": 2.0}
    # good: on recall .5 at 0.5 s and .82 at 1 s; on text 5 and then 2.6; ratios 1/3 and 1/2 (its halfway .5 arrives)
    assert rows["good"].times == {"recall": 0.5, "text": 1.0}
    assert rows["good"].ratios == pytest.approx({"recall": 0.5 / 3, "text": 0.5})
    assert rows["good"].score == pytest.approx((4 - 0.5 / 3 + 3.5) / 6)
    assert (rows["good"].score_to_best, rows["ref"].score) == (1, 1)
    assert rows["ref"].score_to_best == pytest.approx((0 + 2) / 6)
    # half: 0.9 of the way to 2.5 is 3.05: at 2 s; never on recall
    assert rows["half"].times == {"recall": None, "text": 2.0}
    assert (rows["half"].score, rows["half"].reached) == (0.5, 1)
    assert [row.architecture for row in race.rows] == ["good", "ref", "half"]


def test_a_reference_that_does_not_arrive_is_noted():
    race = aggregate_of(RECORDS, targets={"text": 2.2}).race
    rows = by_name(race.rows)
    assert (rows["ref"].ratios["text"], rows["good"].ratios["text"]) == (None, 0)
    assert any("does not reach the target" in note and note.endswith("text") for note in race.notes)


def test_the_meter_is_the_fairest_there_is():
    assert aggregate_of(RECORDS).race.meter.startswith("seconds")
    apart = [change(RECORDS[0], provenance__hardware="another"), *RECORDS[1:]]
    race = aggregate_of(apart).race
    assert race.meter.startswith("FLOPs")
    assert by_name(race.rows)["ref"].times["recall"] == 3e9
    speed = {"good": 2.0}
    race = aggregate_of([change(r, speed=Speed(1.0, None, speed.get(r.spec.architecture, 1.0))) for r in apart]).race
    assert by_name(race.rows)["ref"].times["recall"] == 300
    assert by_name(race.rows)["good"].times["recall"] == 50


def test_without_a_reference_the_best_rows_that_run_on_all_tasks_serve():
    found = aggregate_of(RECORDS, reference="")
    assert {s.one_name for s in found.scales} == {"good"}
    assert {s.zero_name for s in found.scales} == {"chance", "xz"}
    assert any("names no reference" in note for note in found.notes)
    assert any("names none" in note for note in found.race.notes)
    extra = runs("extra", "recall", (0.95, 0.96, 0.97))  # leads on recall, the only task it is to run on
    found = aggregate_of([*RECORDS, *extra], "", only={"text": ["ref", "good", "half"]})
    assert [target.reference for target in found.race.targets] == ["good", "good"]
    assert {row.architecture for row in found.race.rows} == {"ref", "good", "half"}


def test_a_reference_that_is_not_ranked_leaves_its_task_out_for_all():
    found = aggregate_of(RECORDS, reference="half")
    assert [s.task for s in found.scales] == ["text"]
    assert any("not in the normalised scores" in note and note.endswith("recall") for note in found.notes)
    assert any("left out" in note and note.endswith("recall") for note in found.race.notes)
    nothing = aggregate_of(RECORDS, reference="nobody")
    assert (nothing.scales, nothing.race, {row.iqm for row in nothing.rows}) == ([], None, {None})
    assert "no time to target: the reference" in nothing.notes[-1]


def test_one_task_has_times_to_target_and_nothing_else():
    found = aggregate_of(on("text"))
    assert (found.rows, found.scales, found.improvements, found.ranking) == ([], [], [], None)
    assert [row.architecture for row in found.race.rows] == ["good", "half", "ref"]
    bare = [change(r, curve=[], metrics__valid={}) for r in on("text")]
    assert made_of(bare, reference="").across == []
    assert "no time to target" in aggregate_of(bare).notes[0]


def test_nothing_is_said_over_tasks_that_rows_do_not_share():
    found = aggregate_of([r for r in RECORDS if (r.spec.architecture, r.spec.task) != ("ref", "recall")])
    assert (found.rows, found.race) == ([], None)
    assert found.notes == ["nothing is said over recall, text: only good has a score on every task"]


def test_tracks_never_meet():
    """Two tables of one task, each of its own track: the second track's runs are three times as slow."""
    fast = [change(r, spec__track="first") for r in on("text")]
    slow = [change(r, spec__track="second", run_id=f"slow-{r.run_id}") for r in runs("ref", "text", (3.0,) * 3, 3.0)]
    made = made_of([*fast, *slow])
    assert made.across == board.aggregate.make(made.tasks, [*fast, *slow], "ref")
    assert [(a.track, a.tasks, a.rows) for a in made.across] == [("first", ["text"], []), ("second", ["text"], [])]
    assert [by_name(a.race.rows)["ref"].times["text"] for a in made.across] == [3, 9]
    titles = [section.title for section in sections.sections(made)][-2:]
    assert titles == ["time to target (first)", "time to target (second)"]


def test_nobody_is_separated_where_friedman_sees_no_difference(monkeypatch):
    monkeypatch.setattr(aggregate.stats, "critical_difference", lambda *_: 0.1)
    monkeypatch.setattr(aggregate.stats, "friedman", lambda ranked: (9.0, 0.01))
    assert aggregate_of(RECORDS).ranking.groups == [["half", "ref"]]
    monkeypatch.setattr(aggregate.stats, "friedman", lambda ranked: (3.0, 0.2))
    assert aggregate_of(RECORDS).ranking.groups == [["good", "half", "ref"]]


def test_friedman_and_its_limits():
    """Three architectures in the same order on four tasks: χ² = 8, p = exp(−4); CD = 2.343·√(12/24)."""
    levels = {"a": 0.9, "b": 0.5, "c": 0.1}
    records = [r for a, v in levels.items() for i in range(4) for r in runs(a, f"t{i}", (v, v + 0.01))]
    ranking = aggregate_of(records, "", baselines=[]).ranking
    assert (ranking.statistic, ranking.p) == pytest.approx((8, math.exp(-4)))
    assert ranking.difference == pytest.approx(2.3437 * math.sqrt(0.5), abs=1e-3)
    assert ranking.groups == [["a", "b"], ["b", "c"]]
    few = aggregate_of([r for r in records if r.spec.task in ("t0", "t1")], "", baselines=[])
    assert (few.ranking.groups, few.ranking.tasks_to_tell) == ([["a", "b", "c"]], 3)
    assert any("on fewer than 3 tasks" in note for note in few.notes)


def facts(found, names=None):
    """Every number, by architecture; `names` gives them other names."""
    shown = ((found.rows, "iqm low high mean rank scored"), (found.race.rows, "score score_to_best reached"))
    return {
        ((names or {}).get(row.architecture, row.architecture), key): getattr(row, key)
        for rows, keys in shown
        for row in rows
        for key in keys.split()
    }


drawn = settings(max_examples=12, deadline=None)


@drawn
@given(st.randoms(use_true_random=False), st.permutations(["ref", "good", "half"]))
def test_neither_order_nor_names_matter(shuffler, order):
    assert aggregate_of(shuffler.sample(RECORDS, len(RECORDS))) == unchanged()
    names = dict(zip(["ref", "good", "half"], order, strict=True))
    moved = [change(r, spec__architecture_label=names[r.spec.architecture_label]) for r in RECORDS]
    assert facts(aggregate_of(moved, names["ref"])) == pytest.approx(facts(unchanged(), names))


@drawn
@given(st.floats(0.01, 100), st.floats(-50, 50), st.booleans())
def test_an_affine_change_of_a_metric_moves_nothing(scale, shift, turned):
    """`turned`: so does a change of its direction."""
    sign = -scale if turned else scale

    def moved(scores):
        return {name: sign * value + shift for name, value in scores.items()}

    def other(record):
        known, curve = record.metrics, [change(p, valid=moved(p.valid)) for p in record.curve]
        metrics = Metrics("score", (), turned, sign * 8.0 + shift, "", moved(known.valid), moved(known.test))
        return change(record, metrics=metrics, curve=curve)

    records = [other(r) if r.spec.task == "text" else r for r in RECORDS]
    lines = [line | {"value": sign * line["value"] + shift} for line in BASELINES]
    assert facts(aggregate_of(records, baselines=lines)) == pytest.approx(facts(unchanged()))


@drawn
@given(st.floats(0.2, 7.9), st.floats(0, 1), st.floats(0.1, 9), st.sampled_from(["ok", "diverged"]))
def test_a_rival_moves_nobody_measured_by_a_fixed_reference(text, recall, rate, status):
    rival = runs("rival", "text", (text,) * 3, rate, status=status) + runs("rival", "recall", (recall,) * 3, rate)
    before, after = unchanged(), aggregate_of([*RECORDS, *rival])
    rows, times = by_name(after.rows), by_name(after.race.rows)
    for row in before.rows:
        now = rows[row.architecture]
        assert (row.iqm, row.low, row.high, row.normalised) == (now.iqm, now.low, now.high, now.normalised)
    for row in before.race.rows:
        now = times[row.architecture]
        assert (row.score, row.ratios, row.times) == (now.score, now.ratios, now.times)
    assert all(pair in after.improvements for pair in before.improvements)


def test_every_format_has_it():
    made = made_of(RECORDS)
    (stored,) = json.loads(to_json(made))["across"]
    assert (stored["reference"], stored["race"]["rows"][-1]["times"]["recall"]) == ("ref", None)
    assert len(made.to_rows()) == 3 + 1 + 3 + 3  # rows and lines of tasks only
    text = formats.markdown(made)
    assert "| good | 2.000 | \\[2.00, 2.00\\] | 2.000 | 1.00 | 2/2 | 1.00 \\[1.00, 1.00\\] |" in text
    assert max(map(len, text_of(made, width=60).splitlines())) <= 60


def test_old_or_thin_records_make_a_board():
    thin = random.Random(1).sample(RECORDS, 4)
    records = [change(r, curve=[], speed=Speed(), budget__used=Meters(steps=3)) if r in thin else r for r in RECORDS]
    assert len(aggregate_of(records).race.rows) == 3


def test_who_does_not_run_on_a_task_is_not_counted_as_its_worst():
    found = aggregate_of(RECORDS, only={"recall": ["ref", "good"]})
    assert {row.architecture for row in found.rows} == {"ref", "good"}
    assert "left out, since the suite runs them on some of the tasks only: half" in found.notes
    assert any(note.startswith("no result is missing") for note in found.notes)


def test_a_large_board_says_what_it_leaves_out(monkeypatch):
    """Pairs are compared with the reference alone, by the same numbers; the rows stay."""
    assert "large board" not in " ".join(made_of(RECORDS).notes)
    monkeypatch.setattr(ranking, "MOST_PAIRS", 3)
    made, whole = made_of(RECORDS), unchanged()
    assert "large board" in made.notes[-1]
    (found,) = made.across
    assert found.improvements == [i for i in whole.improvements if "ref" in (i.first, i.second)] != []
    assert found.rows == whole.rows
    assert not any("depends on who else" in note for task in made.tasks for note in task.notes)
    assert "ref" in text_of(made)


def test_curves_that_cannot_be_read_cost_the_times_alone():
    class Damaged(Curve):
        def __init__(self):
            super().__init__(self.fail, "x")

        def fail(self):
            raise UserError("curves.parquet: cannot be read")

    made = board.make("planted", [record.replace(curve=Damaged()) for record in RECORDS], BASELINES)
    assert made.across[0].race is None
    assert made.across[0].rows
    assert "no time to target: curves.parquet: cannot be read" in made.across[0].notes
