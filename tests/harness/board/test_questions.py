"""Answers to lm-evaluation-harness on a board: ranked by seeds like any task, behind the tasks of the suite."""

import pytest

from harness import board
from harness.records.meters import StopRule
from harness.records.record import Answer, AnswerMetric, Eligibility, External, LmEval
from harness.records.spec import PRETRAINED
from tests.harness.board.conftest import by_name
from tests.harness.planted import FAILED, change, plant


def with_answers(record, error=0.03, digest="c0ffee", **answers):
    """The record with answers: name → accuracy."""
    tasks = {}
    for name, value in answers.items():
        metrics = {"acc_norm": AnswerMetric(value / 2, error), "acc": AnswerMetric(value, error, chance=0.25)}
        tasks[name] = Answer(1, digest, 200, 0, None, metrics)
    return change(record, lm_eval=LmEval("0.4.13", {}, tuple(tasks), tasks, {}, {}, 0.0))


def answers_of(three, error=0.03):
    """Accuracy the other way round: pre_ln knows most, lstm least."""
    knows = {"lstm": 0.25, "s4d": 0.40, "pre_ln": 0.55}
    noise = [0.0, 0.002, 0.001, 0.001, 0.0, 0.002, 0.0, 0.001, 0.002]
    return [with_answers(r, error, arc=knows[r.spec.architecture] + noise[i], copa=0.5) for i, r in enumerate(three)]


@pytest.fixture
def answered(three):
    return answers_of(three)


def test_each_question_is_ranked_behind_the_tasks(answered, baselines):
    made = board.make("quick", answered, baselines)
    assert [task.task for task in made.tasks] == ["text", "arc", "copa"]
    text, arc, _ = made.tasks
    assert [row.architecture for row in text.rows] == ["lstm", "s4d", "pre_ln"]
    assert [row.architecture for row in arc.rows] == ["pre_ln", "s4d", "lstm"]
    assert (arc.metric, arc.higher_is_better, arc.chance) == ("acc", True, 0.25)
    assert arc.rows[0].mean == pytest.approx(0.551)
    assert arc.rows[0].params == text.rows[0].params
    assert arc.rows[0].separated_from(arc.rows[1]), "what the seeds separate is separated"
    assert any("200 questions" in note and "0.03" in note for note in arc.notes)
    assert not any("questions" in note for note in text.notes)


def test_chance_is_beaten_only_beyond_the_standard_error_of_the_questions(three):
    """s4d's .40 lies five standard errors of .03 above .25; with .08 it lies less than two."""
    for error, verdict in ((0.03, "pre_ln, s4d; cannot tell: lstm"), (0.08, "pre_ln; cannot tell: s4d, lstm")):
        arc = board.make("quick", answers_of(three, error), []).tasks[1]
        assert f"beat chance (0.250): {verdict}" in arc.notes
        assert arc.rows[0].separated_from(arc.rows[1]), "they answered the same questions"


def test_other_questions_and_failed_gates_are_not_ranked(answered):
    other = with_answers(answered[0], digest="badc0de", arc=0.25)
    cheating = change(answered[8], eligibility=Eligibility(gates={"causality": FAILED}))
    rows = by_name(board.make("quick", [other, *answered[1:8], cheating], []).tasks[1].rows)
    assert rows["lstm"].reason == "data fingerprint differs from the others' (seed 0)"
    assert rows["pre_ln"].reason.startswith("failed gate causality")


def test_a_model_that_cannot_answer_is_a_row_with_the_reason(answered):
    refused = LmEval("0.4.13", {}, (), {}, {}, {"arc": "no token for U+0031"}, 0.0)
    made = board.make("quick", [*answered, plant("kjv", 0, 2.0, lm_eval=refused)], [])
    row = by_name(made.tasks[1].rows)["kjv"]
    assert (row.status, row.reason, row.ranked) == ("unsupported", "no token for U+0031", False)


def test_external_rows_are_shown_and_not_ranked(answered, baselines):
    bought = plant(
        PRETRAINED, 0, 1.2, data__stream_hash="", eligibility=Eligibility(), spec__architecture_label="RWKV-4 169M",
        external=External("rwkv", "rwkv-4.pth", "00"), spec__stop=None, spec__match=None, spec__train=None,
    )  # fmt: skip
    text, arc, _ = board.make("quick", [*answered, with_answers(bought, arc=0.9)], baselines).tasks
    for row in (text.rows[-1], arc.rows[-1]):
        assert (row.architecture, row.ranked) == ("RWKV-4 169M", False)
        assert row.reason == "external: trained elsewhere, on other data and budgets; shown, not ranked"
    assert [row.rank_low for row in text.rows[:3]] == [1, 2, 2], "nobody else's rank depends on it"
    assert any("identical data: stream hash equal over 3" in note for note in text.notes)


def test_answers_after_several_tasks_name_theirs_and_have_none_of_their_targets(answered):
    goal = {"spec__stop": StopRule("tokens", 1_000_000, 2.5), "budget__reached": True}
    code = [change(r, spec__task_label="code", run_id=f"{r.run_id}-code", **goal) for r in answered]
    tables = {table.task: table.metric for table in board.make("quick", answered + code, []).tasks}
    answers = [f"{name} after {task}" for name in ("arc", "copa") for task in ("code", "text")]
    trained = {"code": "tokens to bits_per_byte 2.5", "text": "bits_per_byte"}
    assert tables == trained | dict.fromkeys(answers, "acc")
    assert [*tables] == ["code", "text", *answers]
