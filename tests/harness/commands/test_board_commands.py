"""`board --format`, `plot` and `compare` on the published suites."""

import json
from pathlib import Path

import pytest

RESULTS = ("--results", Path(__file__).parents[3] / "results")


def test_formats_go_to_the_screen_or_to_a_file(call, tmp_path):
    shown = json.loads(call("board", "quick", *RESULTS, "--format", "json").stdout)
    assert shown == json.loads(call("board", "quick", *RESULTS, "--json").stdout)
    assert {row["suite"] for row in shown} == {"quick"}
    call("board", "quick", *RESULTS, "--out", tmp_path / "quick.tex")
    assert r"\textbf{rwkv4}" in (tmp_path / "quick.tex").read_text()
    assert "--out board.parquet" in call("board", "quick", *RESULTS, "--format", "parquet", status=2).stderr
    assert "known: .tex" in call("board", "quick", *RESULTS, "--out", tmp_path / "quick.doc", status=2).stderr


def test_plot_lists_chooses_and_writes(call, tmp_path):
    assert "learning_rates" in call("plot", "fair", *RESULTS).stdout
    for format, begins in (("pdf", b"%PDF"), ("json", b"{")):
        file = tmp_path / f"x.{format}"
        call("plot", "fair", "dots", *RESULTS, "--track", "tokens", "--out", file)
        assert file.read_bytes().startswith(begins)
    assert "--track 'seconds'" in call("plot", "fair", "dots", *RESULTS, "--out", file, status=2).stderr
    assert "--out cost.pdf" in call("plot", "fair", "cost", *RESULTS, "--track", "tokens", status=2).stderr
    assert "'dots'?" in call("plot", "fair", "dot", *RESULTS, status=2).stderr


@pytest.mark.slow
@pytest.mark.with_all
def test_compare_over_every_suite(call):
    found = json.loads(call("compare", "rwkv4", "pre_ln", *RESULTS, "--json").stdout)
    assert {"quick", "fair", "leaderboard"} <= {one["suite"] for one in found["tasks"]}
    one = json.loads(call("compare", "rwkv4", "pre_ln", "quick", *RESULTS, "--json").stdout)
    assert [task for task in found["tasks"] if task["suite"] == "quick"] == one["tasks"]
    assert "no row 'pre_lm' in any suite" in call("compare", "rwkv4", "pre_lm", *RESULTS, status=2).stderr
