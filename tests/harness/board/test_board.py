"""Boards from planted records: who is ranked, who is not and why, and what is said beside the table."""

from __future__ import annotations

import csv
import io
import json
import random

import pytest
from rich.console import Console

from harness import board, stats
from harness.board import notes, tables
from harness.gates import applied


def rows_of(made: board.Board) -> dict[str, board.Row]:
    (task,) = made.tasks
    return {row.architecture: row for row in task.rows}


def made_of(records, baselines=()) -> board.Board:
    return board.make("quick", records, baselines)


def text_of(made: board.Board, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    board.render(made, console)
    return console.file.getvalue()


def test_planted_ranking(three, baselines):
    made = made_of(three, baselines)
    rows = rows_of(made)
    assert {a: (r.rank_low, r.rank_high) for a, r in rows.items()} == {"lstm": (1, 1), "s4d": (2, 3), "pre_ln": (2, 3)}
    assert rows["lstm"].mean == pytest.approx(2.0)
    assert rows["lstm"].seeds == [0, 1, 2]
    assert rows["lstm"].scores == pytest.approx([1.91, 1.98, 2.11])
    assert (rows["s4d"].params_non_embedding, rows["s4d"].lr, rows["s4d"].flops) == (401_000, 0.003, 2.4e12)
    (task,) = made.tasks
    assert [r.architecture for r in task.rows] == ["lstm", "s4d", "pre_ln"]
    assert [b.name for b in task.lines] == ["trigram", "bigram", "chance"]
    assert any("beat trigram (3.210): all 3" in note for note in task.notes)
    assert any("equal over 3 architectures for each of 3 seeds" in note for note in task.notes)
    assert any("80% power at 3 seeds" in note for note in task.notes)
    assert made.notes == ["hyperparameters were not tuned per architecture"]


def test_a_baseline_is_beaten_by_every_seed_or_not_surely(plant, three, baselines):
    worse = [plant("rwkv4", s, 3.2 + 0.1 * (s - 1)) for s in range(3)]
    awful = [plant("gru", s, 3.6 + 0.1 * (s - 1)) for s in range(3)]
    (task,) = made_of([*three, *worse, *awful], baselines).tasks
    assert "beat trigram (3.210): lstm, s4d, pre_ln; cannot tell: rwkv4; do not: gru" in task.notes


def test_order_of_records_never_matters(three, plant, baselines):
    records = [*three, plant("mlp", 0, status="unsupported"), plant("odd", 0, 1.0, data__stream_hash="other")]
    first = made_of(records, baselines)
    for seed in range(5):
        random.Random(seed).shuffle(records)
        random.Random(seed).shuffle(baselines)
        assert made_of(records, baselines) == first
    assert made_of(records + records, baselines) == first


def test_failures_are_rows_with_reasons(plant, three):
    failed = [plant("post_ln", 0, 2.0), *(plant("post_ln", s, status="diverged") for s in (1, 2))]
    refused = [plant("token_mlp", s, status="unsupported") for s in range(3)]
    made = made_of([*refused, *failed, *three])
    rows = rows_of(made)
    assert rows["post_ln"].status == "diverged"
    assert rows["post_ln"].reason == "2 of 3 seeds diverged: loss is not finite at step 12"
    assert rows["post_ln"].seeds == [0]
    assert rows["token_mlp"].reason == "TokenMLP looks both ways and cannot be made causal"
    assert not rows["post_ln"].ranked
    assert rows["lstm"].rank_high == 1
    assert [r.architecture for r in made.tasks[0].rows][-2:] == ["post_ln", "token_mlp"]
    shown = text_of(made)
    assert "2 of 3 seeds diverged" in shown
    assert "looks both ways" in shown


def test_worst_status_wins(plant):
    mixed = [plant("x", 0, status="diverged"), plant("x", 1, status="oom"), plant("x", 2, 1.0)]
    row = rows_of(made_of(mixed))["x"]
    assert row.status == "oom"
    assert row.reason.startswith("1 of 3 seeds oom: out of memory; 1 of 3 seeds diverged")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data__stream_hash": "other"}, "data hash differs from the others' (seed 1)"),
        ({"data__stream_hash": None}, "no data hash (seed 1)"),
        ({"size__mismatch": -0.2}, "size off its target by -20.0%, tolerance 5.0% (seed 1)"),
        ({"spec__stop": {"tokens": 2_000_000}}, "budget differs from the others' (seed 1)"),
        ({"data__fingerprint": "beef"}, "data fingerprint differs from the others' (seed 1)"),
        ({"metrics__test": {"bits_per_byte": float("nan")}}, "no finite test score (seed 1)"),
        ({"eligibility": None}, "did not pass the gates (seed 1)"),
        (
            {
                "eligibility": {
                    "ranked": False,
                    "gates": {"causality": {"passed": False, "measured": 0.3, "limit": 1e-4}},
                }
            },
            "failed gate causality (measured 0.3, limit 0.0001) (seed 1)",
        ),
    ],
)
def test_one_bad_seed_unranks_the_row(plant, three, changes, reason):
    bad = [plant("odd", s, 1.0 + 0.1 * s, **(changes if s == 1 else {})) for s in range(3)]
    made = made_of([*three, *bad])
    row = rows_of(made)["odd"]
    assert row.reason == reason
    assert (row.rank_low, row.low, row.letters, row.status) == (None, None, "", "ok")
    assert [r.architecture for r in made.tasks[0].rows] == ["lstm", "s4d", "pre_ln", "odd"]


def test_two_hashes_without_a_majority_rank_nobody(plant):
    made = made_of([plant("a", 0, 1.0), plant("b", 0, 2.0, data__stream_hash="other")])
    assert all(r.reason == "data hashes disagree and none has a majority" for r in made.tasks[0].rows)
    assert "nothing could be ranked" in made.tasks[0].notes


def test_an_early_end_does_not_count_as_other_data(plant, three):
    early = [plant("post_ln", s, status="diverged", data__stream_hash="short") for s in range(3)]
    assert rows_of(made_of([*three, *early]))["lstm"].ranked


def test_a_seed_run_twice_is_not_ranked(plant, three):
    row = rows_of(made_of([*three, plant("lstm", 0, 1.0, run_id="again")]))["lstm"]
    assert row.reason == "several runs of the same seed (seed 0)"


def test_mismatch_at_the_tolerance_is_ranked(plant, three):
    edge = [plant("edge", s, 2.5 + 0.1 * s, size__mismatch=0.05) for s in range(3)]
    assert rows_of(made_of([*three, *edge]))["edge"].ranked


def test_single_seed(plant, baselines):
    made = made_of([plant(a, 0, score) for a, score in (("a", 2.0), ("b", 3.0), ("c", 4.0))], baselines)
    assert all((r.rank_low, r.rank_high, r.low) == (1, 3, None) for r in made.tasks[0].rows)
    assert any("one seed" in note for note in made.tasks[0].notes)
    assert "1–3" in text_of(made)


def test_missing_seeds(three):
    made = made_of([r for r in three if r["run_id"] != "s4d-2"])
    assert rows_of(made)["s4d"].seeds == [0, 1]
    assert any("s4d (2 of 3)" in note for note in made.tasks[0].notes)


def test_all_equal(plant):
    made = made_of([plant(a, s, 2.0) for a in "abc" for s in range(3)])
    assert all((r.rank_low, r.rank_high, r.letters) == (1, 3, "a") for r in made.tasks[0].rows)


def test_other_hardware_blanks_speeds(plant, three):
    other = [plant("gpu", s, 2.5 + 0.1 * s, provenance__hardware="H100") for s in range(3)]
    made = made_of([*three, *other])
    assert all(r.tokens_per_s is None and r.seconds is None for r in made.tasks[0].rows)
    assert any("hardware differs" in note for note in made.tasks[0].notes)
    assert all(r.ranked for r in made.tasks[0].rows)


def timed(plant, architecture, seed, score, *, step=0.004, relative=1.5, **changes):
    """A record with a reference whose step took `step` seconds."""
    reference = {"architecture": "pre_ln", "steps": 90, "step_seconds": step, "drift": 1.1}
    speed = {"train_tokens_per_s": 31_000.0, "reference": reference, "relative": relative}
    return plant(architecture, seed, score, speed=speed, **changes)


def suite_of(plant, steps, **changes):
    """Architectures with the reference's step for each seed."""
    return [
        timed(plant, name, seed, 2.0 + i + 0.1 * seed, step=step, **changes)
        for i, (name, own) in enumerate(steps.items())
        for seed, step in enumerate(own)
    ]


def test_the_ratio_stands_beside_the_speed(plant):
    records = [timed(plant, "a", s, 2.0 + 0.1 * s, step=0.004, relative=r) for s, r in enumerate((1.2, 1.4))]
    made = made_of([*records, *(plant("old", s, 3.0 + 0.1 * s) for s in range(2))])
    rows = rows_of(made)
    assert (rows["a"].relative_speed, rows["a"].reference_step_seconds) == (pytest.approx(1.3), pytest.approx(0.004))
    assert (rows["old"].relative_speed, rows["old"].reference_step_seconds) == (None, None)
    table = [[cell.strip() for cell in line.split("|")] for line in tables.markdown(made).splitlines() if "|" in line]
    at = table[0].index("× ref")
    assert table[0][at - 1] == "speed"
    shown = {line[2]: (line[at - 1], line[at]) for line in table}
    assert shown["a"] == ("31k tok/s", "1.30")
    assert shown["old"] == ("31k tok/s", "–")
    assert made.to_rows()[0]["relative_speed"] == pytest.approx(1.3)


def test_records_without_a_reference_are_shown_as_before(three):
    made = made_of(three)
    assert "× ref" not in tables.markdown(made)
    assert not any("reference" in note for note in made.tasks[0].notes)


def test_a_drift_of_more_than_a_tenth_is_told(plant):
    within = suite_of(plant, {"a": (0.0040, 0.0041), "b": (0.0044, 0.0042)})
    assert not any("drifted" in note for note in made_of(within).tasks[0].notes)
    beyond = suite_of(plant, {"a": (0.0040, 0.0041), "b": (0.00445, 0.0042)})
    notes = [note for note in made_of(beyond).tasks[0].notes if "reference" in note]
    assert notes == [
        "the machine drifted: the reference's step took between 4 and 4.45 ms; the ratios (× ref) are the ones to read"
    ]


def test_in_a_table_of_seconds_drift_names_the_runs_it_touched(plant):
    """The median of 4, 4, 4, 4, 5, 3.2 ms is 4: one run is 25% above, one 20% below; nobody is unranked for it."""
    records = suite_of(plant, {"a": (0.004, 0.004, 0.004), "b": (0.004, 0.005, 0.0032)}, spec__stop={"seconds": 30})
    made = made_of(records)
    (note,) = [note for note in made.tasks[0].notes if note.startswith("equal seconds")]
    assert note.endswith("furthest off its median beside b seed 1 (its step +25%), b seed 2 (its step -20%)")
    assert all(row.ranked for row in made.tasks[0].rows)
    mild = suite_of(plant, {"a": (0.0040, 0.0040), "b": (0.0040, 0.0045)}, spec__stop={"seconds": 30})
    (note,) = [note for note in made_of(mild).tasks[0].notes if note.startswith("equal seconds")]
    assert note.endswith("beside b seed 1 (its step +12%)"), "none by 15%, so the worst alone"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"provenance__hardware": "H100"}, "hardware"),
        ({"provenance__threads": 2}, "threads"),
        ({"provenance__hardware": "H100", "provenance__precision": "fp32"}, "hardware and precision"),
    ],
)
def test_other_machines_share_no_speed_and_no_seconds(plant, change, what):
    """In tokens all are ranked, with no speed nor ratio for anybody; in seconds the odd ones out are not ranked."""
    steps = {"a": (0.004, 0.004), "b": (0.004, 0.004), "odd": (0.001, 0.001)}

    def made(**stop):
        records = suite_of(plant, steps, **stop)
        for record in records:
            if record["spec"]["architecture"] == "odd":
                for path, value in change.items():
                    record["provenance"][path.split("__")[1]] = value
        return made_of(records)

    tokens, seconds = made(), made(spec__stop={"seconds": 30})
    for one in (tokens, seconds):
        assert {
            (r.tokens_per_s, r.seconds, r.relative_speed, r.reference_step_seconds) for r in rows_of(one).values()
        } == {(None, None, None, None)}
        assert "× ref" not in tables.markdown(one)
        assert not any("drifted" in note for note in one.tasks[0].notes)
        (note,) = [note for note in one.tasks[0].notes if "speeds are not compared" in note]
        assert note.startswith(what)
    assert all(row.ranked for row in rows_of(tokens).values())
    assert rows_of(seconds)["odd"].reason == f"other {what} than the others'; seconds are not comparable"
    assert [name for name, row in rows_of(seconds).items() if row.ranked] == ["a", "b"]


def test_two_machines_without_a_majority_rank_nobody_by_seconds(plant):
    records = suite_of(plant, {"a": (0.004,), "b": (0.004,)}, spec__stop={"seconds": 30})
    records[1]["provenance"]["hardware"] = "H100"
    reasons = {row.reason for row in rows_of(made_of(records)).values()}
    assert reasons == {"no majority agrees on the hardware; seconds are not comparable"}


def test_a_reference_that_could_not_be_is_told(plant):
    speed = {"train_tokens_per_s": 31_000.0, "reference": {"problem": "Unsupported: no"}, "relative": None}
    made = made_of([plant(a, s, 2.0 + 0.1 * s, speed=speed) for a in "ab" for s in range(2)])
    assert "speeds without a reference: Unsupported: no" in made.tasks[0].notes


def test_tuning_is_told(plant, three):
    trials = [
        plant(a, 0, 2.0, spec__kind="trial", spec__train={"lr": lr}, run_id=f"{a}{lr}")
        for a in ("lstm", "s4d", "pre_ln")
        for lr in (0.001, 0.003)
    ]
    made = made_of([*three, *trials])
    assert made.notes == []
    notes = made.tasks[0].notes
    assert "tuning: 2 trials per architecture, chosen on the validation split" in notes
    assert any(note.startswith("best learning rate at the edge of its grid: lstm 0.003") for note in notes)
    reason = "tuning differs from the others' in the number of trials: 1, others 2"
    assert rows_of(made_of([*three, *trials[1:]]))["lstm"].reason == reason
    assert rows_of(made)["lstm"].seeds == [0, 1, 2]


def test_higher_is_better(plant, three):
    for record in three:
        record["metrics"] |= {"higher_is_better": True, "chance": 0.1}
    assert [r.architecture for r in made_of(three).tasks[0].rows] == ["pre_ln", "s4d", "lstm"]


def test_rows_for_machines(three, plant, baselines):
    rows = made_of([*three, plant("mlp", 0, status="unsupported")], baselines).to_rows()
    wanted = {
        "architecture",
        "task",
        "metric",
        "mean",
        "low",
        "high",
        "seeds",
        "rank_low",
        "rank_high",
        "status",
        "reason",
    }
    assert all(wanted <= set(row) for row in rows)
    assert [r["architecture"] for r in rows if r["status"] == "baseline"] == ["trigram", "bigram", "chance"]
    assert len({frozenset(row) for row in rows}) == 1
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_fits(three, plant, baselines, width):
    long = [plant("gated_deltanet_with_a_long_name", s, 2.5 + 0.1 * s) for s in range(3)]
    shown = text_of(made_of([*three, *long, plant("[red]x", 0, status="unsupported")], baselines), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "2.000 ± 0.0" in shown
    assert "2.4 TFLOP" in shown
    assert "[red]x" in shown
    assert "…" not in shown


def test_numbers_for_people():
    assert tables.human(401_234, figures=3) == "401k"
    assert tables.human(2.4e12, "FLOP") == "2.4 TFLOP"
    assert tables.human(180e6, "B") == "180 MB"
    assert tables.human(12_288, "B") == "12 kB"
    assert tables.human(999_999) == "1M"
    assert tables.human(0, "B") == "0 B"
    assert tables.human(None) == "–"


def test_markdown_and_csv(three, plant, baselines):
    made = made_of([*three, plant("a|b", 0, status="oom")], baselines)
    text = tables.markdown(made)
    assert r"a\|b" in text
    assert "1 of 1 seeds oom: out of memory" in text
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(made))))
    assert rows[0]["architecture"] == "lstm"
    assert rows[0]["seeds"] == "0 1 2"
    assert json.loads(tables.as_json(made))["tasks"][0]["rows"][0]["rank_low"] == 1


def test_no_records(baselines):
    made = made_of([], baselines)
    assert made.tasks == []
    text_of(made)


def test_other_scores_stand_beside_the_one_that_ranks(plant, baselines):
    """Their means over the seeds, in every form; a row without one says so."""
    records = [
        plant(name, seed, score, metrics__also=["loss"], metrics__test={"bits_per_byte": score, **other})
        for name, score, other in (("a", 2.0, {"loss": 1.25}), ("b", 3.0, {}))
        for seed in range(2)
    ]
    made = made_of(records, baselines)
    rows = rows_of(made)
    assert (rows["a"].also, rows["b"].also) == ({"loss": 1.25}, {})
    table = [line.split("|") for line in tables.markdown(made).splitlines() if line.startswith("|")]
    column = [cell.strip() for cell in table[0]].index("loss")
    shown = {line[2].strip(): line[column].strip() for line in table}
    assert (shown["a"], shown["b"]) == ("1.250", "–")
    assert "loss=1.25" in tables.as_csv(made)


def test_a_tie_that_hangs_on_a_third_is_told(plant):
    """a and b differ by ten times their scatter, c's is so wide that the three cannot be told apart."""
    noise = {"a": (0.01, -0.02, 0.01), "b": (-0.01, 0.01, 0.0), "c": (0.0, -1.0, 1.0)}
    means = {"a": 2.0, "b": 2.1, "c": 2.0}
    made = made_of([plant(a, s, means[a] + noise[a][s]) for a in noise for s in range(3)])
    assert "depends on who else is on the board: a–b would be separated without c" in made.tasks[0].notes


def test_many_hinges_are_counted():
    found = [stats.Hinge("c", tuple((f"a{i}", "b") for i in range(9)), ()), stats.Hinge("d", (("a0", "b"),), ())]
    (note,) = notes._hinges(found)
    assert "a0–b would be separated without c or d; a1–b" in note
    assert note.endswith("and 6 more pairs")


def test_one_seed_beside_rows_of_several_is_not_ranked(three):
    made = made_of([r for r in three if r["run_id"] not in ("s4d-1", "s4d-2")])
    row = rows_of(made)["s4d"]
    assert (row.ranked, row.letters, row.mean) == (False, "", pytest.approx(2.89))
    assert row.reason == "one seed only, where others have 3"


@pytest.mark.parametrize(
    ("stop", "used", "reason"),
    [
        ({"tokens": 1_000_000}, {"tokens": 1_200_000}, "used 1.2e+06 tokens, more than its budget of 1e+06"),
        ({"flops": 2e12}, {"flops": 2.4e12}, "used 2.4e+12 flops, more than its budget of 2e+12"),
    ],
)
def test_whoever_trained_longer_than_the_budget_is_not_ranked(plant, three, stop, used, reason):
    for record in three:
        record["spec"]["stop"] = stop
        record["budget"]["used"] |= {"tokens": 1_000_000, "flops": 2e12}
    cheat = plant("cheat", 0, 1.5, spec__stop=stop)
    cheat["budget"]["used"] |= used
    assert rows_of(made_of([*three, cheat]))["cheat"].reason == reason
    assert all(row.ranked for name, row in rows_of(made_of([*three, cheat])).items() if name != "cheat")


def test_gates_that_were_not_asked_are_told(plant):
    """Skipped by the suite, or not yet there when the record was made; neither unranks a row."""
    passed = {"passed": True, "measured": 0.0, "limit": 0.0, "about": ""}
    every = dict.fromkeys(applied("lm", matched=True), passed)
    some = {name: passed for name in every if name not in ("causal", "untrained")}
    new = {"ranked": True, "gates": every}
    cut = {"ranked": True, "gates": some, "skipped": ["causal", "untrained"]}
    old = {"ranked": True, "gates": some}

    def notes(first, second):
        records = [plant("a", s, 1.0 + s / 100, spec__role="lm", eligibility=first) for s in range(3)]
        records += [plant("b", s, 1.2 + s / 100, spec__role="lm", eligibility=second) for s in range(3)]
        made = made_of(records)
        assert all(row.ranked for row in made.tasks[0].rows)
        return [note for note in made.tasks[0].notes if "gates" in note or "judged" in note]

    assert notes(new, new) == []
    assert notes(new, cut) == ["gates skipped: causal, untrained (b)"]
    assert notes(cut, cut) == ["gates skipped: causal, untrained"]
    assert notes(old, new) == ["not judged by causal, untrained (a): older records"]


def test_a_smallest_difference_beyond_the_metric_is_called_so(plant):
    wild = {"a": (0.1, 0.9, 0.2), "b": (0.9, 0.1, 0.8), "c": (0.5, 0.5, 0.6)}
    made = made_of(
        [plant(a, s, v, metrics__higher_is_better=True, metrics__unit="") for a in wild for s, v in enumerate(wild[a])]
    )
    (note,) = (note for note in made.tasks[0].notes if note.startswith("smallest difference"))
    assert made.tasks[0].mdd > 1
    assert note.endswith("which is more than any two rows can differ by")
