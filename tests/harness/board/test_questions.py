"""Answers to lm-evaluation-harness on a board: ranked by seeds like any task, behind the tasks of the suite."""

import copy

import pytest

from harness import board
from harness.board import questions


def asked(record, **answers):
    """The record with answers: name → (accuracy, standard error)."""
    tasks = {
        name: {
            "version": 1,
            "hash": "c0ffee",
            "samples": 200,
            "fewshot": 0,
            "metrics": {
                "acc_norm": {"value": value / 2, "stderr": error, "higher_is_better": True},
                "acc": {"value": value, "stderr": error, "higher_is_better": True, "chance": 0.25},
            },
        }
        for name, (value, error) in answers.items()
    }
    return {**copy.deepcopy(record), "lm_eval": {"package": "0.4.13", "terms": {}, "names": [*tasks], "tasks": tasks}}


@pytest.fixture
def answered(three):
    """Accuracy the other way round: pre_ln knows most, lstm least."""
    knows = {"lstm": 0.25, "s4d": 0.40, "pre_ln": 0.55}
    noise = [0.0, 0.002, 0.001, 0.001, 0.0, 0.002, 0.0, 0.001, 0.002]
    return [
        asked(r, arc=(knows[r["spec"]["architecture"]] + noise[i], 0.03), copa=(0.5, 0.05)) for i, r in enumerate(three)
    ]


def test_each_question_is_ranked_behind_the_tasks(answered, baselines):
    made = board.make("quick", answered, baselines)
    assert [task.task for task in made.tasks] == ["text", "arc", "copa"]
    text, arc, _ = made.tasks
    assert [row.architecture for row in text.rows] == ["lstm", "s4d", "pre_ln"]
    assert [row.architecture for row in arc.rows] == ["pre_ln", "s4d", "lstm"]
    assert (arc.metric, arc.higher_is_better, arc.chance) == ("acc", True, 0.25)
    assert arc.rows[0].mean == pytest.approx(0.551)
    assert arc.rows[0].params == text.rows[0].params
    assert not arc.rows[0].groups & arc.rows[1].groups, "what the seeds separate is separated"
    assert any("200 questions" in note and "0.03" in note for note in arc.notes)
    assert not any("questions" in note for note in text.notes)


def test_chance_is_beaten_only_beyond_the_doubt_of_which_questions_were_asked(answered):
    """s4d's .40 lies five standard errors of .03 above .25; with .08 it lies less than two."""
    arc = board.make("quick", answered, []).tasks[1]
    assert next(note for note in arc.notes if "chance" in note) == "beat chance (0.250): pre_ln, s4d; cannot tell: lstm"
    for record in answered:
        record["lm_eval"]["tasks"]["arc"]["metrics"]["acc"]["stderr"] = 0.08
    arc = board.make("quick", answered, []).tasks[1]
    assert "beat chance (0.250): pre_ln; cannot tell: s4d, lstm" in arc.notes
    assert not arc.rows[0].groups & arc.rows[1].groups, "they answered the same questions"


def test_other_questions_are_not_compared(answered, baselines):
    answered[0]["lm_eval"]["tasks"]["arc"]["hash"] = "badc0de"
    made = board.make("quick", answered, baselines)
    row = next(row for row in made.tasks[1].rows if row.architecture == "lstm")
    assert not row.ranked
    assert "data fingerprint" in row.reason


def test_a_failed_gate_counts_for_answers_too(answered, baselines):
    for record in answered:
        if record["spec"]["architecture"] == "pre_ln":
            record["eligibility"]["gates"]["causality"] = {"passed": False, "measured": 1.0, "limit": 1e-4}
            record["eligibility"]["ranked"] = False
    arc = board.make("quick", answered, baselines).tasks[1]
    assert not next(row for row in arc.rows if row.architecture == "pre_ln").ranked


def test_external_rows_are_shown_and_not_ranked(answered, baselines, plant):
    bought = plant("pretrained", 0, 1.2, data__stream_hash="", eligibility={"ranked": False, "gates": {}})
    bought |= {"external": {"kind": "rwkv", "where": "rwkv-4.pth", "weights": "00"}}
    bought["spec"] |= {"architecture_label": "RWKV-4 169M", "stop": {}, "match": None}
    made = board.make("quick", [*answered, asked(bought, arc=(0.9, 0.03))], baselines)
    for task in made.tasks[:2]:
        row = task.rows[-1]
        assert (row.architecture, row.ranked) == ("RWKV-4 169M", False)
        assert row.reason == "external: trained elsewhere, on other data and budgets; shown, not ranked"
    text = made.tasks[0]
    assert [row.rank_low for row in text.rows[:3]] == [1, 2, 2], "nobody else's place depends on it"
    assert any("identical data: stream hash equal over 3" in note for note in text.notes)


def test_models_of_several_tasks_are_told_apart(answered):
    other = copy.deepcopy(answered)
    for record in other:
        record["spec"]["task_label"], record["run_id"] = "code", record["run_id"] + "-code"
    names = [task.task for task in board.make("quick", answered + other, []).tasks]
    assert names == ["code", "text", "arc after code", "arc after text", "copa after code", "copa after text"]


def test_a_target_of_training_is_no_target_of_answers(answered, baselines):
    for record in answered:
        record["spec"]["stop"] = {"tokens": 1_000_000, "target": 2.5}
        record["budget"]["reached"] = True
    text, arc, _ = board.make("quick", answered, baselines).tasks
    assert text.metric == "tokens to bits_per_byte 2.5"
    assert arc.metric == "acc"


def test_columns_leave_the_records_alone(answered):
    before = copy.deepcopy(answered)
    columns = questions.columns(answered)
    assert answered == before
    assert len(columns) == 2 * len(answered)
    assert all("question" in column["metrics"] for column in columns)
    assert not any("question" in record["metrics"] for record in answered)
