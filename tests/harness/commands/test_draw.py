"""`draw`: files, JSON, and refusals of one line; the figures in the docs are what it draws."""

import io
import json
from pathlib import Path

import pytest

from harness.commands.draw import as_bytes
from harness.site import figures

pytest.importorskip("fast_sugiyama", reason="has no wheel for Python 3.10")
DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_each_format(call, tmp_path):
    for suffix, start in (("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF")):
        file = tmp_path / f"both.{suffix}"
        assert call("draw", "post_ln", "pre_ln", "--out", file).stdout == f"written to {file}\n"
        assert file.read_bytes().startswith(start)


def test_a_picture_is_on_white():
    png = as_bytes('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><style></style></svg>', "png")
    image = pytest.importorskip("PIL.Image")
    assert image.open(io.BytesIO(png)).convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)


def test_json_has_what_the_figure_shows(call):
    post, pre = json.loads(call("draw", "post_ln", "pre_ln", "--set", "heads=2", "--json").stdout)
    assert (post["architecture"], post["repeats"]) == ("post_ln", 4)
    for drawn in (post, pre):
        assert {node["label"] for node in drawn["nodes"] if node["differs"]} == {"LayerNorm"}
        assert len(drawn["edges"]) >= len(drawn["nodes"]) - 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pre_lm", "--out", "a.svg"], "did you mean 'pre_ln'?"),
        (["pre_ln"], "--out pre_ln.svg"),
        (["pre_ln", "--out", "a.gif"], "unknown suffix '.gif'; known: svg, png, pdf"),
        (["mlp_mixer", "--role", "lm", "--json"], "mlp_mixer: TokenMLP looks both ways"),
        (["pre_ln", "--set", "head=2", "--json"], "did you mean 'heads'?"),
    ],
)
def test_bad_input_is_answered_in_one_line(words, said, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = call("draw", *words, status=2).stderr
    assert said in answer
    assert answer.count("\n") == 1
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("post_ln_pre_ln.svg", ["post_ln", "pre_ln"]),
        ("post_ln_pre_ln_operations.svg", ["post_ln", "pre_ln", "--depth", "operations"]),
        ("mamba2_layers.svg", ["mamba2", "--depth", "layers"]),
    ],
)
def test_the_figures_in_the_docs_are_drawn_from_this_code(file, words, call, tmp_path):
    """What they say, and where: the layout engine may move a line by a point."""
    call("draw", *words, "--out", tmp_path / file)
    told = [
        [line.partition(">")[2] for line in path.read_text().split("<") if line.startswith(("text", "title", "tspan"))]
        for path in (DOCS / file, tmp_path / file)
    ]
    assert told[0] == told[1]


def test_a_page_says_why_there_is_no_figure(monkeypatch):
    """Whatever a model raises; nothing is kept of it."""

    def fail(*_, **__):
        raise RuntimeError("two\nlines")

    known = {}
    monkeypatch.setattr("zoo.figures.draw", fail)
    assert figures.of("pre_ln", known) == ("", "", "RuntimeError: two lines")
    assert not known
    known = {"pre_ln": {"svg": "<svg/>", "depth": "layers", "problem": ""}}
    assert figures.of("pre_ln", known).svg == "<svg/>"


def test_a_figure_too_large_for_a_page_gives_way_to_blocks(monkeypatch):
    monkeypatch.setattr(figures, "LARGEST", 8000)
    assert figures.of("pre_ln", {}).depth == "blocks"
