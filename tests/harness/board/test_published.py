"""The published boards, made again from their records: every word and number is the one that stands there."""

from pathlib import Path

import pytest

from harness.board.formats import markdown
from harness.board.report import board

RESULTS = Path(__file__).parents[3] / "results"


@pytest.mark.parametrize("suite", ["quick", "fair", "local_questions"])
def test_published_boards_come_out_the_same(suite):
    """A suite with baselines and several tasks, one with tracks, and one with questions and published weights."""
    assert markdown(board(suite, root=RESULTS)) == (RESULTS / suite / "board.md").read_text(encoding="utf-8")
