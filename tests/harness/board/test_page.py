"""The HTML page: self-contained, escaped, the same every time."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from harness import board
from harness.board import plots
from harness.board.page import page

NASTY = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Counts tags and ids; knows nothing of meaning."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id"]
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]


@pytest.fixture
def records(three, plant):
    nasty = [plant(NASTY, s, 2.5 + 0.1 * s, provenance__hardware=NASTY) for s in range(3)]
    return [*three, *nasty, plant("mlp", 0, status="unsupported", error={"kind": "x", "message": NASTY})]


@pytest.fixture
def made(records, baselines):
    return board.make(NASTY, records, baselines, about="A & B " + NASTY)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def test_self_contained_and_escaped(made, records):
    text = page(made, records)
    assert "http://" not in text
    assert "https://" not in text
    assert "alert(1)</script>" not in text
    found = read(text)
    assert found.tags.count("script") == 1
    assert found.tags.count("svg") == 3
    assert "link" not in found.tags
    assert "img" not in found.tags
    assert all(link.startswith("#") for link in found.links)
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links} <= set(found.ids)


def test_says_what_is_needed(made, records):
    text = page(made, records)
    for wanted in (
        "abc1234",
        "bf16",
        "torch 2.9.0",
        "f00d",
        "prefers-color-scheme",
        "How to read",
        "trigram",
        "13, of which 12 ok",
    ):
        assert wanted in text


def test_same_bytes_every_time(made, records):
    assert page(made, records) == page(made, list(reversed(records)))


def test_plots_are_well_formed_and_neutral(made, records):
    style = plots.styles(sorted({r.architecture for r in made.tasks[0].rows}))
    drawn = (
        plots.dots(made.tasks[0], style),
        plots.curves(made.tasks[0], records, style),
        plots.cost(made.tasks[0], style),
    )
    for svg in drawn:
        ElementTree.fromstring(svg)
        assert "var(--axis)" in svg
        assert not re.search(r"fill: #fff", svg)


def test_curves_average_over_seeds(plant):
    runs = [plant("a", s, 2.0, curve=[{"tokens": t, "loss": float(s + t)} for t in (10, 20, 30)]) for s in (0, 2)]
    runs[1]["curve"].append({"tokens": 40, "loss": 0.0})
    grid, mean = plots._average(runs, "loss")
    assert grid.tolist() == [10, 20, 30]
    assert mean.tolist() == [11, 21, 31]


@pytest.mark.parametrize("scores", [(None,), (2.0,), (2.0, 2.0)])
def test_thin_boards_still_make_a_page(plant, scores):
    records = [plant("a", s, v, status="ok" if v else "unsupported") for s, v in enumerate(scores)]
    assert "<table" in page(board.make("thin", records, []), records)
    assert "zoobench" in page(board.make("none", [], []), [])


def test_write(made, records, tmp_path):
    board.write(made, records, tmp_path / "new")
    board.write(made, records, tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["board.csv", "board.json", "board.md", "index.html"]
