"""Equations of architectures, and what they become as MathML."""

from xml.etree import ElementTree

import pytest

from harness.site.mathml import to_mathml
from zoo import architectures
from zoo.equations import equations

MATHML = "{http://www.w3.org/1998/Math/MathML}"


def parsed(line):
    return ElementTree.fromstring(f"<p>{to_mathml(line)}</p>")


def flat(element):
    """An element as nested tuples of its tag and its children or text."""
    children = [flat(child) for child in element if child.tag != MATHML + "mspace"]
    if len(children) == 1 and element.tag in {MATHML + "mrow", MATHML + "math"}:
        return children[0]
    return (element.tag.removeprefix(MATHML), *(children or [element.text]))


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_has_an_equation_all_of_which_is_mathematics(name):
    found = equations(name)
    assert any("=" in line or "←" in line for line in found)
    for line in found:
        bare = [part for part in parsed(line).iter() if part.tag != MATHML + "mover"]  # a hat is a ^
        text = "".join(child.text or "" for part in bare for child in part)
        assert not set("\\{}_^`") & set(text), "shown as it stands in the source"


def test_symbols_scripts_accents_roots_and_words():
    (math,) = parsed("h̃_{t-1} = SiLU(W_in x)² √d_k")
    sub = ("msub", ("mover", ("mi", "h"), ("mo", "~")), ("mrow", ("mi", "t"), ("mo", "−"), ("mn", "1")))
    power = ("msup", ("mo", ")"), ("mn", "2"))
    weight = ("msub", ("mi", "W"), ("mtext", "in"))
    root = ("msqrt", ("msub", ("mi", "d"), ("mi", "k")))
    row = [sub, ("mo", "="), ("mtext", "SiLU"), ("mo", "("), weight, ("mi", "x"), power, root]
    assert flat(math) == ("mrow", *row)


def test_formulas_of_a_line_are_apart_and_limits_stand_below_sums():
    first, second = parsed("y = Σ_{s ≤ t} x_s,    t ∉ G")
    assert first.find(f".//{MATHML}munder/{MATHML}mo").text == "∑"
    assert [element.text for element in second.iter(MATHML + "mo")] == ["∉"]


@pytest.mark.parametrize(
    "line", ["<script>alert(1)</script>", r"\href{javascript:alert(1)}{y}", 'a_{" onload="x"}', "&lt;b&gt;", "x_{", "^"]
)
def test_whatever_stands_there_is_text(line):
    for element in parsed(line).iter():
        assert element.tag == "p" or element.tag.startswith(MATHML)
        assert not {"href", "onload", "style"} & {*element.attrib}


def test_no_equation_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "file_of", lambda name: str(tmp_path / "own.py"))
    assert equations("own") == []
    for doc in ("", '"""Nothing indented.\n\nArgs:\n    x: not an equation.\n"""'):
        (tmp_path / "own.py").write_text(doc)
        assert equations("own") == []
    (tmp_path / "own.py").write_text('"""Own.\n\n    x = 1\n      y = 2\n\ntext\n\n    z = 3\n"""')
    assert equations("own") == ["x = 1", "  y = 2"]
