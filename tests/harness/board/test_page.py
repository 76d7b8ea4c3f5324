"""The HTML page: self-contained, escaped, the same every time; and plots that keep their size."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from harness import board, stats
from harness.board import drawing, plots
from harness.board.page import page
from harness.records.record import CurvePoint, Error
from tests.harness.planted import change, plant

NASTY = "<script>alert(1)</script>"


def test_self_contained_and_escaped(three, baselines):
    nasty = [plant(NASTY, s, 2.5 + 0.1 * s, provenance__hardware=NASTY) for s in range(3)]
    records = [*three, *nasty, plant("mlp", 0, status="unsupported", error=Error("x", NASTY))]
    made = board.make(NASTY, records, baselines, about="A & B " + NASTY)
    text = page(made, records)
    for never in ("http://", "https://", "alert(1)</script>"):
        assert never not in text
    for wanted in ("abc1234", "bf16", "torch 2.9.0", "f00d", "prefers-color-scheme", "How to read", "trigram"):
        assert wanted in text
    assert "13, of which 12 ok" in text
    tags, ids = re.findall(r"<(\w+)", text), re.findall(r'\sid="([^"]*)"', text)
    links = re.findall(r'\s(?:src|href|xlink:href)="([^"]*)"', text)
    assert tags.count("script") == 1
    assert not {"link", "img"} & {*tags}
    assert len(ids) == len(set(ids))
    assert {*links} <= {f"#{known}" for known in ids}
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 3
    for svg in pictures:  # well-formed, and in the colours of the page
        ElementTree.fromstring(svg)
        assert "var(--axis)" in svg
        assert "fill: #fff" not in svg
    assert page(made, list(reversed(records))) == text


@pytest.mark.parametrize("rows", [2, 8, 46])
def test_plots_keep_their_size_and_names_their_place(rows, monkeypatch):
    """However many rows: axes take a sane share of the figure, and no name covers another or leaves the axes."""
    drawn = {}

    def keep(figure, key):
        figure.draw_without_rendering()
        drawn[key.split()[-1]] = figure
        return key

    monkeypatch.setattr(plots, "svg", keep)
    monkeypatch.setattr(stats, "leave_one_out", lambda *_, **__: ())  # seconds for notes that no plot shows
    records = [
        plant(f"architecture_{a}", s, 2.5 + 0.01 * a + 0.01 * s, budget__used__flops=10**12 + 10**9 * a)
        for a in range(rows)
        for s in range(2)
    ]
    (task,) = board.make("many", records, []).tasks
    looks = drawing.styles([row.architecture for row in task.rows])
    plots.dots(task, looks), plots.curves(task, records, looks), plots.cost(task, looks)
    for key, least in (("dots", 0.4), ("curves", 0.3), ("cost", 0.6)):
        frame, height = drawn[key].axes[0].get_position(), drawn[key].get_figheight()
        assert frame.width * frame.height > least, key
        assert frame.height * height > min(2.5, 0.5 + 0.3 * rows), key
        assert height < 14
    axes = drawn["cost"].axes[0]
    boxes = [name.get_window_extent().padded(-2) for name in axes.texts]
    assert len(boxes) == rows
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    inside = axes.get_window_extent().padded(8)
    assert all(inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1) for box in boxes)


def test_curves_average_over_seeds():
    curve = {s: [CurvePoint(t, 1, 0, 1.0, float(s + t)) for t in (10, 20, 30)] for s in (0, 2)}
    curve[2].append(CurvePoint(40, 1, 0, 1.0, 0.0))
    runs = [plant("a", s, 2.0, curve=own) for s, own in curve.items()]
    grid, mean = plots.average(runs, lambda point: point.loss)
    assert grid.tolist() == [10, 20, 30]
    assert mean.tolist() == [11, 21, 31]


@pytest.mark.parametrize("scores", [(), (None,), (2.0,), (2.0, 2.0)])
def test_thin_boards_still_make_a_page(scores):
    records = [plant("a", s, v, status="ok" if v else "unsupported") for s, v in enumerate(scores)]
    bare = [change(r, curve=[]) for r in records]
    for some in (records, bare):
        assert ("<table" in page(board.make("thin", some, []), some)) is bool(scores)
