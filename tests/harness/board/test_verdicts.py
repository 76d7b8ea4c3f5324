"""Verdicts say what the tables say."""

import pytest

from harness import board
from harness.board.model import Aggregate, Board, RankTest, Standing
from harness.board.verdicts import sentences
from tests.harness.planted import plant


def said(records, baselines=()):
    (sentence,) = sentences(board.make("quick", records, baselines))
    return sentence


def test_one_row_leads(three):
    assert said(three) == "text: lstm leads (2.000 bits/byte), separated from all others"


def test_rows_tie_that_the_table_does_not_separate(three):
    tied = [record for record in three if record.spec.architecture != "lstm"]
    assert said(tied) == "text: s4d and pre_ln tie for first (3.000 and 3.020 bits/byte)"
    far = [plant("gru", seed, 9.0 + 0.1 * (seed - 1)) for seed in range(3)]
    assert said([*tied, *far]).endswith("; s4d is separated from the rest")


def test_a_baseline_that_nobody_reaches_is_named(three, baselines):
    better = [baselines[0] | {"name": name, "value": value} for name, value in (("xz", 1.5), ("5-gram", 1.9))]
    assert said(three, [*baselines, *better]).endswith("all others; no row reaches xz or 5-gram")


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([plant("lstm", 0, status="diverged")], "text: nothing could be ranked"),
        ([plant("lstm", 0, 2.0), plant("lstm", 1, 2.2)], "text: lstm is the only ranked row (2.100 bits/byte)"),
    ],
)
def test_few_rows(records, words):
    assert said(records) == words


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([["a"], ["b", "c"]], "it is separated from all others"),
        ([["a", "b"], ["b", "c"]], "it is separated from all others but b"),
        ([["a", "b", "c"]], "no difference of mean ranks is shown"),
    ],
)
def test_over_several_tasks(groups, words):
    rows = [
        Standing(name, 2, {}, iqm, None, None, None, 1.5, {}) for name, iqm in (("a", 1.25), ("b", 1.0), ("c", 0.5))
    ]
    across = Aggregate("params", ["t", "u"], "", rows, ranking=RankTest(9.0, 0.01, 1.0, 2, groups))
    (sentence,) = sentences(Board("s", "", [], [], across=[across]))
    assert sentence.startswith("over 2 tasks (params): a leads (IQM 1.250); ")
    assert sentence.endswith(words)
