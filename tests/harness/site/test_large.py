"""A board of more rows than a page, a chart or a terminal can show."""

import json

import pytest

from harness import board
from harness.board import charts
from harness.board.sections import sections
from harness.records.store import Store
from harness.site import build, suites
from tests.harness.board.conftest import text_of
from tests.harness.planted import plant

ROWS = 210


@pytest.fixture(scope="module")
def records():
    return [
        plant(f"a{i:03}", s, 2.0 + 0.01 * i + 0.002 * s, run_id=f"{i:015}{s}") for i in range(ROWS) for s in range(2)
    ]


@pytest.fixture(scope="module")
def root(records, tmp_path_factory):
    """The suite `large`, which lies in results alone."""
    folder = tmp_path_factory.mktemp("results")
    Store("large", folder).publish(records, {"suite": "large"})
    return folder


def test_a_terminal_shows_the_first_rows_and_says_so(records):
    text = text_of(board.make("large", records, []))
    assert "a099" in text
    assert "a100" not in text
    assert "111 more lines" in text, "chance is one of them"


def test_charts_show_the_best_rows_and_say_so(records):
    made = board.make("large", records, [])
    dots = next(chart for chart in charts.of(sections(made)[0], made, records) if chart.name == "dots")
    assert "the 40 best rows of 210" in dots.caption
    drawn = dots.chart.to_dict(validate=False)
    assert "a039" in json.dumps(drawn)
    assert "a040" not in json.dumps(drawn)


def test_a_page_of_very_many_rows_is_cut_but_its_downloads_are_not(root, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "MOST_LINES", 200)
    monkeypatch.setattr(suites, "MOST_PAGES", 200)
    build.build(tmp_path / "site", ["large"], root)
    page = (tmp_path / "site/suites/large.html").read_text()
    assert 'data-row="a099"' in page
    assert 'data-row="a100"' not in page
    assert "the first 100 of 211 lines" in page
    assert "zoobench query" in page
    assert not (tmp_path / "site/runs").exists()
    (table,) = (tmp_path / "site/downloads/large").glob("*.csv")
    assert "a209" in table.read_text()


def test_results_alone_have_a_board(root, call):
    rows = json.loads(call("board", "large", "--results", root, "--json").stdout)
    assert sum(row["ranked"] for row in rows) == ROWS
    assert json.loads(call("board", root / "large", "--json").stdout) == rows, "by the path of its folder"
    assert "dots" in call("plot", "large", "--results", root).stdout
    assert "a000 is better" in call("compare", "a000", "a209", "large", "--results", root).stdout.replace("\n", " ")
    assert "unknown suite" in call("board", "larg", "--results", root, status=2).stderr
