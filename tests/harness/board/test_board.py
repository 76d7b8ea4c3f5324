"""Boards from planted records: who is ranked, who is not and why, and the notes beside the table."""

import csv
import io
import json
import math
import random

import pytest

from harness import board, stats
from harness.board import formats, notes
from harness.records.checks import gates_for
from harness.records.meters import Meters, StopRule
from harness.records.record import Eligibility, ReferenceSpeed, Speed
from harness.table.rows import MEASURED
from tests.harness.board.conftest import by_name, text_of
from tests.harness.planted import FAILED, PASSED, change, plant


def made_of(records, baselines=()) -> board.Board:
    return board.make("quick", records, baselines)


def rows_of(made: board.Board) -> dict[str, board.Row]:
    return by_name(made.tasks[0].rows)


def notes_of(records, word: str = "") -> list[str]:
    return [note for note in made_of(records).tasks[0].notes if word in note]


def table_of(made: board.Board) -> dict[str, dict[str, str]]:
    """The cells of the Markdown table by row and column."""
    rows = [line.split("|") for line in formats.markdown(made).splitlines() if line[:1] == "|"]
    lines = [[cell.strip() for cell in row] for row in rows]
    return {line[2]: dict(zip(lines[0], line, strict=True)) for line in lines}


def test_planted_ranking(three, baselines):
    made = made_of(three, baselines)
    rows = rows_of(made)
    assert {a: r.ranks for a, r in rows.items()} == {"lstm": (1, 1), "s4d": (2, 3), "pre_ln": (2, 3)}
    assert (rows["lstm"].mean, rows["lstm"].seeds) == (pytest.approx(2.0), [0, 1, 2])
    assert rows["lstm"].scores == pytest.approx([1.91, 1.98, 2.11])
    assert (rows["s4d"].params_non_embedding, rows["s4d"].lr, rows["s4d"].flops) == (401_000, 0.003, 2.4e12)
    (task,) = made.tasks
    assert [r.architecture for r in task.rows] == ["lstm", "s4d", "pre_ln"]
    assert [b.name for b in task.lines] == ["trigram", "bigram", "chance"]
    assert any("beat trigram (3.210): all 3" in note for note in task.notes)
    assert any("equal over 3 architectures for each of 3 seeds" in note for note in task.notes)
    assert any("80% power at 3 seeds" in note for note in task.notes)
    assert made.notes == ["hyperparameters were not tuned per architecture"]
    higher = made_of([change(r, metrics__higher_is_better=True, metrics__chance=0.1) for r in three])
    assert [r.architecture for r in higher.tasks[0].rows] == ["pre_ln", "s4d", "lstm"]


def test_a_baseline_is_beaten_by_every_seed_or_not_surely(three, baselines):
    worse = [plant("rwkv4", s, 3.2 + 0.1 * (s - 1)) for s in range(3)]
    awful = [plant("gru", s, 3.6 + 0.1 * (s - 1)) for s in range(3)]
    (task,) = made_of([*three, *worse, *awful], baselines).tasks
    assert "beat trigram (3.210): lstm, s4d, pre_ln; cannot tell: rwkv4; do not: gru" in task.notes


def test_order_of_records_never_matters(three, baselines):
    records = [*three, plant("mlp", 0, status="unsupported"), plant("odd", 0, 1.0, data__stream_hash="other")]
    records.append(change(records[0], suite="a repeat that says something else"))
    first = made_of(records, baselines)
    for seed in range(5):
        random.Random(seed).shuffle(records)
        random.Random(seed).shuffle(baselines)
        assert made_of(records, baselines) == first
    assert made_of(records + records, baselines) == first


def test_failures_are_rows_with_reasons(three):
    failed = [plant("post_ln", 0, 2.0), *(plant("post_ln", s, status="diverged") for s in (1, 2))]
    mixed = [plant("x", 0, status="diverged"), plant("x", 1, status="oom"), plant("x", 2, 1.0)]
    refused = [plant("token_mlp", s, status="unsupported") for s in range(3)]
    early = [plant("early", s, status="diverged", data__stream_hash="short") for s in range(3)]
    made = made_of([*refused, *failed, *mixed, *early, *three])
    rows = rows_of(made)
    assert (rows["post_ln"].status, rows["post_ln"].seeds, rows["post_ln"].ranked) == ("diverged", [0], False)
    assert rows["post_ln"].reason == "2 of 3 seeds diverged: loss is not finite at step 12"
    assert rows["token_mlp"].reason == "TokenMLP looks both ways and cannot be made causal"
    assert rows["x"].status == "oom"
    assert rows["x"].reason.startswith("1 of 3 seeds oom: out of memory; 1 of 3 seeds diverged")
    assert rows["lstm"].rank_high == 1, "an early end does not count as other data"
    assert [r.architecture for r in made.tasks[0].rows][-1] == "token_mlp"
    assert "2 of 3 seeds diverged" in text_of(made)


def test_who_vouches_for_a_row_is_shown_and_what_is_only_reported_has_no_rank(three):
    assert "origin" not in table_of(made_of(three))["lstm"]
    ada = {"origin__contributor": "Ada", "origin__kind": "reviewed"}
    theirs = [change(r, **(ada if r.spec.architecture == "pre_ln" else {})) for r in three]
    made = made_of(theirs)
    cells = table_of(made)
    assert {name: cells[name]["origin"] for name in rows_of(made)} == {
        "lstm": "made here", "s4d": "made here", "pre_ln": "reviewed"
    }  # fmt: skip
    assert all(row.ranked for row in rows_of(made).values())
    assert made.notes[0] == "made by others: pre_ln by Ada (reviewed)"

    theirs[-1] = change(theirs[-1], origin__kind="reported")
    rows = rows_of(made_of(theirs))
    assert (rows["pre_ln"].origin, rows["pre_ln"].ranked) == ("reported", False)
    assert rows["pre_ln"].reason.startswith("only reported: nobody who publishes this board")
    assert rows["pre_ln"].reason.endswith("(seed 2)")
    ranks = {name: row.ranks for name, row in rows_of(made_of(theirs[:6])).items()}
    assert {name: rows[name].ranks for name in ranks} == ranks, "no other row's rank depends on it"
    elsewhere = [*theirs[:6], *(change(r, origin__kind="reported", provenance__hardware="theirs") for r in theirs[6:])]
    speeds = {name: row.tokens_per_s for name, row in rows_of(made_of(elsewhere)).items()}
    assert speeds == {"lstm": 31_000.0, "s4d": 31_000.0, "pre_ln": None}, "nor does the others' speed"


CHEAT = Eligibility(gates={"causality": FAILED})


def used(**meters):
    return {"budget__used": Meters(**{"tokens": 1_000_000, "steps": 977, **meters})}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data__stream_hash": "other"}, "data hash differs from the others'"),
        ({"data__stream_hash": ""}, "no data hash"),
        ({"size__mismatch": -0.2}, "size off its target by -20.0%, tolerance 5.0%"),
        ({"spec__stop": StopRule("tokens", 2_000_000)}, "budget differs from the others'"),
        (used(tokens=1_200_000), "used 1.2e+06 tokens, more than its budget of 1e+06"),
        (
            {"spec__stop": StopRule("flops", 2e12), **used(flops=24 * 10**11)},
            "used 2.4e+12 flops, more than its budget of 2e+12; budget differs from the others'",
        ),
        ({"data__fingerprint": "beef"}, "data fingerprint differs from the others'"),
        ({"provenance__precision": "fp32"}, "precision differs from the others'"),
        ({"metrics__test": {"bits_per_byte": math.nan}}, "no finite test score"),
        ({"eligibility": Eligibility()}, "did not pass the gates"),
        ({"eligibility": CHEAT}, "failed gate causality (measured 0.3, limit 0.0001)"),
    ],
)
def test_one_bad_seed_unranks_the_row(three, changes, reason):
    bad = [plant("odd", s, 1.0 + 0.1 * s, **(changes if s == 1 else {})) for s in range(3)]
    made = made_of([*three, *bad])
    row = rows_of(made)["odd"]
    assert row.reason == "; ".join(f"{part} (seed 1)" for part in reason.split("; "))
    assert (row.rank_low, row.low, row.letters, row.status) == (None, None, "", "ok")
    assert [r.architecture for r in made.tasks[0].rows] == ["lstm", "s4d", "pre_ln", "odd"]


def test_a_row_whose_seeds_are_of_several_sizes_is_not_ranked(three):
    odd = [plant("odd", s, 1.0, **({"size__width": 100} if s == 1 else {})) for s in range(3)]
    assert rows_of(made_of([*three, *odd]))["odd"].reason == "its seeds are not of one size"


@pytest.mark.parametrize(
    "changes",
    [
        {"size__mismatch": 0.05},
        {"spec__stop": StopRule("flops", 2e12), **used(flops=2 * 10**12)},
        {"spec__stop": StopRule("seconds", 30.0)},  # 31.2 were used
    ],
)
def test_within_its_tolerance_and_its_budget_a_row_is_ranked(three, changes):
    assert all(row.ranked for row in rows_of(made_of([change(r, **changes) for r in three])).values())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data__stream_hash": "other"}, "data hashes disagree and none has a majority"),
        ({"data__fingerprint": "beef"}, "no majority agrees on the data fingerprint"),
        ({"provenance__hardware": "H100"}, "no majority agrees on the hardware; seconds are not comparable"),
    ],
)
def test_two_without_a_majority_rank_nobody(changes, reason):
    seconds = {"spec__stop": StopRule("seconds", 30.0)}
    (task,) = made_of([plant("a", 0, 1.0, **seconds), plant("b", 0, 2.0, **seconds, **changes)]).tasks
    assert {row.reason for row in task.rows} == {reason}
    assert "nothing could be ranked" in task.notes


def test_runs_of_different_length_are_compared_where_both_have_been(three):
    """By time, one makes 600 steps and the others 977: their hashes after 512 steps count."""
    marks = {"512": "same", "1024": "beyond"}
    longer = [change(r, data__stream_marks=marks) for r in three]
    short = plant("short", 0, 2.5, data__stream_hash="else", data__stream_marks=marks, budget__used__steps=600)
    assert rows_of(made_of([*longer, short]))["short"].reason == "one seed only, where others have 3"
    other = change(short, data__stream_marks={"512": "else"})
    assert "data hash differs" in rows_of(made_of([*longer, other]))["short"].reason


def test_seeds_that_are_few_missing_or_repeated(three, baselines):
    twice = made_of([*three, plant("lstm", 0, 1.0, run_id="again")])
    assert rows_of(twice)["lstm"].reason == "several runs of the same seed (seed 0)"
    missing = made_of([r for r in three if r.spec.architecture != "s4d" or r.spec.seed != 2])
    assert rows_of(missing)["s4d"].seeds == [0, 1]
    assert any("s4d (2 of 3)" in note for note in missing.tasks[0].notes)
    alone = rows_of(made_of([r for r in three if r.spec.architecture != "s4d" or r.spec.seed == 0]))["s4d"]
    assert (alone.ranked, alone.letters, alone.mean) == (False, "", pytest.approx(2.89))
    assert alone.reason == "one seed only, where others have 3"
    single = made_of([plant(a, 0, score) for a, score in (("a", 2.0), ("b", 3.0), ("c", 4.0))], baselines)
    assert all((r.rank_low, r.rank_high, r.low) == (1, 3, None) for r in single.tasks[0].rows)
    assert any("one seed" in note for note in single.tasks[0].notes)
    assert "1–3" in text_of(single)


def timed(architecture, seed, score, *, step=0.004, relative=1.5, **changes):
    """A record with a reference whose step took `step` seconds."""
    reference = ReferenceSpeed("pre_ln", 96, 4, 4, steps=90, step_seconds=step, drift=1.1)
    speed = Speed(31_000.0, reference, relative, 2e4, 3e-3, 1.25, 4e-3, 0.8)
    return plant(architecture, seed, score, speed=speed, **changes)


def suite_of(steps, **changes):
    """Architectures with the reference's step for each seed."""
    runs = [(name, seed, step) for name, own in steps.items() for seed, step in enumerate(own)]
    return [timed(name, seed, 2.0 + i, step=step, **changes) for i, (name, seed, step) in enumerate(runs)]


def test_what_only_one_row_has(three):
    """Ratios to the reference and scores that rank nothing: means over the seeds, a dash where there are none."""
    tests = [{"bits_per_byte": 2.0 + s, "loss": 1.0 + s / 2} for s in range(2)]
    also = [{"metrics__also": ("loss",), "metrics__test": test} for test in tests]
    records = [timed("a", s, 2.0 + s, relative=1.2 + 0.2 * s, **also[s]) for s in range(2)]
    made = made_of([*records, *(plant("old", s, 3.0 + s) for s in range(2))])
    rows, shown = rows_of(made), table_of(made)
    known = {name: (row.relative_speed, row.reference_step_seconds, row.also) for name, row in rows.items()}
    assert known == {"a": (pytest.approx(1.3), 0.004, {"loss": 1.25}), "old": (None, None, {})}
    assert [shown["a"][title] for title in ("speed", "× ref", "loss")] == ["31k tok/s", "1.30", "1.250"]
    assert [shown["old"][title] for title in ("speed", "× ref", "loss")] == ["31k tok/s", "–", "–"]
    assert "loss=1.25" in formats.as_csv([made])
    assert "× ref" not in formats.markdown(made_of(three))
    assert notes_of(three, "reference") == []


def test_a_drift_of_more_than_a_tenth_is_noted():
    within, beyond = (suite_of({"a": (0.0040, 0.0041), "b": (step, 0.0042)}) for step in (0.0044, 0.00445))
    assert notes_of(within, "drifted") == []
    (note,) = notes_of(beyond, "reference")
    assert note.startswith("the machine drifted: the reference's step took between 4 and 4.45 ms; the ratios")


@pytest.mark.parametrize(
    ("steps", "runs"),
    [  # the median is 4 ms: one run is 25% above, one 20% below; or none by 15%, so the worst alone
        ({"a": (0.004,) * 3, "b": (0.004, 0.005, 0.0032)}, "b seed 1 (its step +25%), b seed 2 (its step -20%)"),
        ({"a": (0.0040, 0.0040), "b": (0.0040, 0.0045)}, "b seed 1 (its step +12%)"),
    ],
)
def test_in_a_table_of_seconds_drift_names_the_runs_it_touched(steps, runs):
    records = suite_of(steps, spec__stop=StopRule("seconds", 30.0))
    (note,) = notes_of(records, "equal seconds")
    assert note.endswith(f"furthest off its median beside {runs}")
    assert all(row.ranked for row in rows_of(made_of(records)).values())


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"provenance__hardware": "H100"}, "hardware"),
        ({"provenance__threads": 2}, "threads"),
        ({"provenance__hardware": "H100", "provenance__threads": 2}, "hardware and threads"),
    ],
)
def test_other_machines_share_no_speed_and_no_seconds(changes, what):
    """In tokens all are ranked, with no speed nor ratio for anybody; in seconds the odd ones out are not ranked."""
    tokens = suite_of({"a": (0.004, 0.004), "b": (0.004, 0.004), "odd": (0.001, 0.001)})
    tokens = [change(r, **changes) if r.spec.architecture == "odd" else r for r in tokens]
    seconds = [change(r, spec__stop=StopRule("seconds", 30.0)) for r in tokens]
    for records in (tokens, seconds):
        rows = rows_of(made_of(records)).values()
        assert {(r.tokens_per_s, r.seconds, r.relative_speed, r.reference_step_seconds) for r in rows} == {(None,) * 4}
        assert notes_of(records, "drifted") == []
        (note,) = notes_of(records, "speeds are not compared")
        assert note.startswith(what)
    assert all(row.ranked for row in rows_of(made_of(tokens)).values())
    rows = rows_of(made_of(seconds))
    assert rows["odd"].reason == f"other {what} than the others'; seconds are not comparable"
    assert [name for name, row in rows.items() if row.ranked] == ["a", "b"]


def test_why_there_is_no_reference_is_noted(three):
    speed = Speed(31_000.0, ReferenceSpeed("pre_ln", 96, 4, 4, problem="Unsupported: no"))
    assert "speeds without a reference: Unsupported: no" in notes_of([change(r, speed=speed) for r in three])


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_fits(three, baselines, width):
    long = [plant("gated_deltanet_with_a_long_name", s, 2.5 + 0.1 * s) for s in range(3)]
    shown = text_of(made_of([*three, *long, plant("[red]x", 0, status="unsupported")], baselines), width)
    assert max(map(len, shown.splitlines())) <= width
    for wanted in ("2.000 ± 0.", "2.4 TFLOP", "[red]x"):
        assert wanted in shown
    assert "…" not in shown


def test_markdown_csv_and_json(three, baselines):
    made = made_of([*three, plant("a|b", 0, status="oom")], baselines)
    shown = formats.markdown(made)
    for wanted in (r"a\|b", "1 of 1 seeds oom: out of memory", "|  | *trigram* | 3.210 |"):
        assert wanted in shown
    rows, stored = list(csv.DictReader(io.StringIO(formats.as_csv([made])))), made.to_rows()
    assert (rows[0]["architecture"], rows[0]["seeds"], rows[0]["flops"]) == ("lstm", "0 1 2", "2400000000000.0")
    assert [row["architecture"] for row in rows if row["status"] == "baseline"] == ["trigram", "bigram", "chance"]
    assert {tuple(row) for row in rows} == {tuple(row) for row in stored}
    json.dumps(stored, allow_nan=False)


def test_every_measured_field_of_a_row_is_in_every_format():
    finals = [timed(name, s, 2.0 + 0.1 * s, size__params_active=301_000) for name in "ab" for s in range(2)]
    finals[-1] = change(finals[-1], origin__kind="reviewed")
    trials = [plant(name, 0, 2.0, run_id=f"trial-{name}", spec__kind="trial") for name in "ab"]
    made = made_of([*finals, *trials])
    (header, first, *_), stored = formats.as_csv([made]).splitlines(), made.to_rows()[0]
    known = dict(zip(header.split(","), first.split(","), strict=True))
    shown = [*table_of(made)["a"]]
    terminal = text_of(made, width=260)
    for name, column in MEASURED.items():
        assert str(stored[name]) == known[name] != ""
        if column.title:
            assert column.title in shown
            assert column.text(stored[name]) in terminal


def test_a_tie_that_hangs_on_a_third_is_noted():
    """a and b differ by five times their scatter, which with c's beside it may be luck."""
    scores = {"a": (2.01, 1.98, 2.01), "b": (2.055, 2.075, 2.065), "c": (2.0, 1.0, 3.0)}
    records = [plant(a, s, score) for a in scores for s, score in enumerate(scores[a])]
    assert "depends on who else is on the board: a–b would be separated without c" in notes_of(records)
    nine = stats.Influence("c", tuple((f"a{i}", "b") for i in range(9)), ())
    (note,) = notes._influences([nine, stats.Influence("d", (("a0", "b"),), ())])
    assert "a0–b would be separated without c or d; a1–b" in note
    assert note.endswith("and 6 more pairs")


def test_gates_that_were_not_applied_are_noted():
    """Skipped by the suite, or not yet there when the record was made; neither unranks a row."""
    every = dict.fromkeys(gates_for("lm", matched=True), PASSED)
    some = {name: PASSED for name in every if name not in ("causal", "untrained")}
    new, old = (Eligibility(ranked=True, gates=gates) for gates in (every, some))
    cut = change(old, skipped=("causal", "untrained"))

    def said(first, second):
        both = {"a": first, "b": second}
        records = [plant(name, s, 1.0 + s / 100, eligibility=own) for name, own in both.items() for s in range(3)]
        assert all(row.ranked for row in rows_of(made_of(records)).values())
        return notes_of(records, "gates") + notes_of(records, "judged")

    assert said(new, new) == []
    assert said(new, cut) == ["gates skipped: causal, untrained (b)"]
    assert said(cut, cut) == ["gates skipped: causal, untrained"]
    assert said(old, new) == ["not judged by causal, untrained (a): older records"]
