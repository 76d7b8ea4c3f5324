"""Seeds that are added in rounds, which follow from records alone; boards come to the same verdict."""

import pytest

from harness.board import make
from harness.board.report import rank
from harness.plan.expand import expand
from harness.plan.rounds import add_seeds
from harness.plan.wanted import wanted
from harness.suite.load import load

from ..planted import change, plant

ROWS = ["lstm", "gru", "mamba", "s4d"]
MEANS = dict(zip(ROWS, (1.0, 1.01, 3.0, 5.0), strict=True))
"""The first two are nearly tied."""
NOISE = (0.02, -0.03, 0.01, 0.03, -0.02, -0.01)


@pytest.fixture
def rule(suite):
    """Loads the tiny suite, to whose four rows seeds are added."""

    def make(start=3, most=5, until="separated", **changes):
        seeds = {"start": start, "most": most, "until": until}
        budget = {"match": "none", "stop": {"tokens": "1M"}}
        return load(suite(architectures=ROWS, seeds=seeds, budget=budget, **changes))

    return make


def record(spec, means=MEANS, noise=NOISE, **changes):
    """What a run of the suite would have left."""
    planted = plant(spec.architecture, spec.seed, means[spec.architecture_label] + noise[spec.seed % len(noise)])
    metrics = {"fingerprint": spec.fingerprint, "stream_hash": f"{spec.task}{spec.seed}"}
    planted = planted.replace(spec=spec, run_id=spec.run_id, data=planted.data.replace(**metrics))
    return change(planted, budget__stop=spec.stop, **changes)


def finish(loaded, known=None, rounds=99, **planted):
    """The records of a suite after so many rounds; and the seeds that each round added, by row."""
    known, added = dict(known or {}), []
    for _ in range(rounds):
        lacking = [spec for run_id, spec in wanted(loaded, known).items() if run_id not in known]
        if not lacking:
            break
        added.append(sorted((spec.architecture_label, spec.seed) for spec in lacking))
        known |= {spec.run_id: record(spec, **planted) for spec in lacking}
    return known, added


def board(loaded, known):
    """The board of these records alone, and of what the suite's results say of it."""
    return rank(loaded.described(()), known.values(), ()).tasks[0]


def test_only_undecided_neighbours_get_more_seeds(rule):
    loaded = rule()
    known, added = finish(loaded)
    assert added == [
        sorted((row, seed) for row in ROWS for seed in range(3)),
        [("gru", 3), ("lstm", 3)],
        [("gru", 4), ("lstm", 4)],
    ]
    assert set(wanted(loaded, known)) == set(known), "and it ends there"
    assert finish(loaded, known)[1] == []


def test_it_stops_as_soon_as_all_are_separated(rule):
    known, added = finish(rule(), means=MEANS | {"gru": 2.0})
    assert len(added) == 1
    assert len(known) == 12
    shown = board(rule(), known)
    assert "all neighbours are separated after 3 seeds; pairs are tried at 0.0167" in " ".join(shown.notes)


def test_a_round_is_finished_before_the_next_and_any_interruption_is_made_good(rule):
    loaded = rule()
    known, _ = finish(loaded)
    for lost in [record for record in known.values() if record.spec.seed in (0, 3)]:
        rest = {run_id: record for run_id, record in known.items() if record is not lost}
        lacking = [spec for run_id, spec in wanted(loaded, rest).items() if run_id not in rest]
        assert lacking == [lost.spec], "the round that it belongs to goes first"
        assert finish(loaded, rest)[0] == known


def test_a_failed_run_leaves_the_ranking_and_is_not_tried_again(rule):
    loaded = rule()
    known, _ = finish(loaded, rounds=1)
    failed = next(spec for run_id, spec in wanted(loaded, known).items() if run_id not in known and spec.seed == 3)
    known[failed.run_id] = record(failed, status="diverged")
    known, _ = finish(loaded, known)
    row = failed.architecture_label
    assert {r.spec.seed for r in known.values() if r.spec.architecture_label == row} == {0, 1, 2, 3}
    assert set(wanted(loaded, known)) == set(known), "it ends there"
    assert {r.architecture: r.reason for r in board(loaded, known).rows}[row] == "1 of 4 seeds diverged"


def test_a_half_width_adds_to_the_rows_that_are_wider(rule):
    loaded = rule(until=0.5)
    known, added = finish(loaded)
    assert len(added) == 1
    assert "all intervals are within ±0.5 after 3 seeds" in board(loaded, known).notes
    tight = rule(until=0.001)
    known, added = finish(tight)
    assert len(known) == 4 * 5
    assert "lstm, gru, mamba, s4d wider than ±0.001 with 5 seeds, the most" in board(tight, known).notes


def test_tables_go_by_themselves(rule):
    """What is undecided on one task adds nothing on another."""
    easy = {"mqar": {"length": 8, "pairs": 2, "vocab": 16}, "as": "easy"}
    loaded = rule(tasks=[{"mqar": {"length": 8, "pairs": 1, "vocab": 16}}, easy])
    known = dict[str, object]()
    while lacking := [spec for run_id, spec in wanted(loaded, known).items() if run_id not in known]:
        known |= {s.run_id: record(s, MEANS | ({"gru": 2.0} if s.task_label == "easy" else {})) for s in lacking}
    seeds = {task: max(r.spec.seed for r in known.values() if r.spec.task_label == task) for task in ("mqar", "easy")}
    assert seeds == {"mqar": 4, "easy": 2}


def test_a_row_that_rested_catches_up(rule):
    """The middle row is clearly above the third, until the fourth seed of the pair above moves it down."""
    loaded, means = rule(most=6), {"lstm": 1.0, "gru": 1.0, "mamba": 1.2, "s4d": 5.0}
    noise = (0.02, -0.03, 0.01, 0.4, -0.02, 0.03)
    _, added = finish(loaded, means=means, noise=noise)
    assert ("mamba", 3) not in added[1]
    later = [own for own in added[2:] if any(row == "mamba" for row, _ in own)]
    assert later, "its neighbour has come near"
    caught_up = [seed for row, seed in later[0] if row == "mamba"]
    assert caught_up == [*range(3, 3 + len(caught_up))]
    assert len(caught_up) > 1


def test_a_board_shows_rounds_that_have_ended_and_says_what_is_under_way(rule):
    loaded = rule()
    known, _ = finish(loaded, rounds=2)
    whole = board(loaded, known)
    assert any("gru undecided after 4 seeds; under way: one more for" in note for note in whole.notes)
    late = max(known.values(), key=lambda r: (r.spec.seed, r.spec.architecture_label))
    rest = {run_id: record for run_id, record in known.items() if record is not late}
    part = board(loaded, rest)
    assert {row.architecture: len(row.seeds) for row in part.ranked} == dict.fromkeys(ROWS, 3)
    before = board(loaded, finish(loaded, rounds=1)[0])
    assert [row.letters for row in part.rows] == [row.letters for row in before.rows]
    assert not any("seeds missing" in note for note in whole.notes + part.notes)


def test_a_board_is_judged_at_the_level_of_a_look(rule):
    """Rows that fixed seeds separate at 5% are not at an eighth of it."""
    means = {"lstm": 1.0, "gru": 1.08, "mamba": 3.0, "s4d": 5.0}
    loaded = rule(most=10)
    known, _ = finish(loaded, rounds=1, means=means)
    fixed = make("tiny", known.values(), ())
    looked = board(loaded, known)
    letters = [{row.architecture: row.letters for row in one.ranked} for one in (fixed.tasks[0], looked)]
    assert not {*letters[0]["lstm"]} & {*letters[0]["gru"]}
    assert {*letters[1]["lstm"]} & {*letters[1]["gru"]}
    assert "pairs are tried at 0.00625, the part that each of 8 looks has in 0.05" in " ".join(looked.notes)
    assert [row.high - row.low for row in looked.ranked] == [row.high - row.low for row in fixed.tasks[0].ranked]


def test_fixed_seeds_are_as_they_were(rule, suite):
    loaded = load(suite())
    assert "seeds" not in loaded.described(())
    specs = expand(loaded)
    assert add_seeds(loaded, specs, [], lambda spec: None) == (specs, [])


def test_trials_come_first_and_seeds_are_added_to_what_they_chose(rule):
    loaded = rule(tuning={"lr": [1e-3, 3e-3], "budget": 0.5})
    known, added = finish(loaded)
    finals = [record.spec for record in known.values() if record.spec.kind == "final"]
    assert max(spec.seed for spec in finals) == 4
    assert len({spec.train.lr for spec in finals}) == 1
    assert len(added[0]) == 4 * 2 + 4 * 3
