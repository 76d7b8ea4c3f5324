"""Figures: the graph at each depth, what differs between two, and the SVG."""

import dataclasses
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter

import pytest
import torch
from torch import nn

import zoo
from zoo.blocks import residual
from zoo.contract import Batch
from zoo.figures import compare, figure, graph, svg
from zoo.figures.collapse import collapse
from zoo.figures.graph import DEPTHS, Graph, Node, fold
from zoo.figures.trace import trace

pytest.importorskip("fast_sugiyama", reason="has no wheel for Python 3.10")
SVG = "{http://www.w3.org/2000/svg}"
NORMS = {"LayerNorm", "layer norm"}


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_architecture_is_drawn_from_tokens_to_logits(architecture, depth):
    """Each node leads to the logits; each comes from the tokens, from weights, or from a constant."""
    found = figure.graph_of(architecture, depth=depth)
    assert all(a < b for a, b in found.edges), "arrows go forward"
    ends = [i for i, node in enumerate(found.nodes) if node.label == "logits"]
    assert graph.reaches(found, ends, backwards=True) == {*range(len(found.nodes))}
    starts = [i for i, node in enumerate(found.nodes) if node.kind in ("end", "constant") or node.weights]
    assert graph.reaches(found, starts) == {*range(len(found.nodes))}
    (tokens,) = (i for i, node in enumerate(found.nodes) if node.label == "tokens")
    assert ends[0] in graph.reaches(found, [tokens])
    drawn = ET.fromstring(svg.draw([found], [set()], depth))
    assert len(drawn.findall(f".//{SVG}g[{SVG}title]")) == len(found.nodes)
    assert len(drawn.findall(f".//{SVG}path[@class='zf-tip']")) == len(found.edges)


@pytest.mark.parametrize("depth", DEPTHS)
def test_post_ln_and_pre_ln_differ_exactly_at_their_norms(depth):
    graphs = [figure.graph_of(name, depth=depth) for name in ("post_ln", "pre_ln")]
    for drawn, marked in zip(graphs, figure.marks(graphs), strict=True):
        assert marked == {i for i, node in enumerate(drawn.nodes) if node.label in NORMS}
    assert sum(node.repeated for node in graphs[0].nodes if node.label in NORMS) == 2
    assert [node.repeated for node in graphs[1].nodes if node.label in NORMS] == [True, True, False]


def sources(drawn, label):
    """The labels that the nodes with a label read."""
    return [[drawn.nodes[k].label for k in drawn.sources(i)] for i, n in enumerate(drawn.nodes) if n.label == label]


def test_the_figure_shows_where_the_norm_is():
    """Vaswani et al. 2017, section 3.1: LayerNorm(x + Sublayer(x)); Xiong et al. 2020, table 1: x + Sublayer(LN(x))."""
    post, pre = (figure.graph_of(name) for name in ("post_ln", "pre_ln"))
    assert sources(post, "LayerNorm") == [["+"], ["+"]]
    assert sources(post, "+") == [["Embedding", "Attention"], ["LayerNorm", "MLP"]]
    assert sources(pre, "LayerNorm") == [["Embedding"], ["+"], ["+"]]
    assert sources(pre, "Attention") == [["LayerNorm"]]
    assert sources(pre, "+") == [["Embedding", "Attention"], ["+", "MLP"]]


class Moved(residual.PostNorm):
    """x + norm(f(x)): the norm of Post-LN, moved into the branch."""

    def write(self, stream, y):
        return stream + self.norm(y)


def test_a_norm_that_moves_in_the_code_moves_in_the_figure(monkeypatch):
    before = figure.graph_of("post_ln")
    monkeypatch.setitem(residual.RESIDUALS, "post", Moved)
    after = figure.graph_of("post_ln")
    assert sources(before, "LayerNorm") == [["+"], ["+"]]
    assert sources(after, "LayerNorm") == [["Attention"], ["MLP"]]
    assert sources(after, "+") == [["Embedding", "LayerNorm"], ["+", "LayerNorm"]]
    for drawn, marked in zip((before, after), figure.marks([before, after]), strict=True):
        assert marked == {i for i, node in enumerate(drawn.nodes) if node.label == "LayerNorm"}


@pytest.mark.parametrize(
    ("first", "second", "labels"),
    [
        ("pre_ln", "pre_ln", (set(), set())),
        ("pre_ln", "gpt2", (set(), set())),
        ("post_ln", "rezero", ({"LayerNorm"}, {"×"})),
        ("pre_ln", "sandwich_ln", (set(), {"LayerNorm"})),
        ("lstm", "gru", ({"LSTM"}, {"GRU"})),
    ],
)
def test_what_differs_between_neighbours(first, second, labels):
    graphs = [figure.graph_of(name) for name in (first, second)]
    for drawn, marked, wanted in zip(graphs, figure.marks(graphs), labels, strict=True):
        assert {drawn.nodes[i].label for i in marked} == wanted


def test_what_is_repeated_is_repeated_in_the_whole_model():
    """A figure of one block with its count has the nodes of the model of all blocks."""
    model = figure.build("pre_ln", "lm", 4, {})
    whole = collapse(trace(model, figure.batch_of(model)), model, "layers")
    folded = figure.graph_of("pre_ln", depth="layers")
    assert folded.repeats == 4
    counted = Counter()
    for node in folded.nodes:
        counted[node.label] += folded.repeats if node.repeated else 1
    assert counted == Counter(node.label for node in whole.nodes)
    nodes = [dataclasses.replace(node, label="odd") if i == 20 else node for i, node in enumerate(whole.nodes)]
    assert fold(dataclasses.replace(whole, nodes=tuple(nodes)), 4) is None, "one block differs"
    far = dataclasses.replace(whole, edges=(*whole.edges, (5, len(whole.nodes) - 1)))
    assert fold(far, 4) is None, "the first block has an arrow past the others"


def test_a_module_called_twice_is_two_nodes():
    class Twice(zoo.Model):
        def __init__(self):
            nn.Module.__init__(self)
            self.shape, self.recipe = zoo.Shape(length=3, vocab=5, outputs=5, width=4, depth=1), zoo.recipe("lstm")
            self.embed, self.layer = nn.Embedding(5, 4), nn.Linear(4, 4)

        def forward(self, batch):
            return self.layer(self.layer(self.embed(batch.inputs)))

    model = Twice()
    found = collapse(trace(model, Batch(inputs=torch.zeros(1, 3, dtype=torch.long))), model, "layers")
    assert [node.label for node in found.nodes] == ["tokens", "Embedding", "Linear", "Linear", "logits"]
    assert found.edges == ((0, 1), (1, 2), (2, 3), (3, 4))


def made(*labels, edges=None):
    nodes = tuple(Node(label, "other", "", (1,)) for label in labels)
    return Graph(nodes, edges or tuple((i, i + 1) for i in range(len(nodes) - 1)), "a title")


def test_markup_in_names_is_text():
    evil = '<script>alert("1")</script>&amp;'
    drawn = svg.draw([dataclasses.replace(made("tokens", evil), title=evil, notes=(evil,))], [{1}], "layers")
    tree = ET.fromstring(drawn)
    assert tree.find(f".//{SVG}script") is None
    assert {"".join(text.itertext()) for text in tree.iter(f"{SVG}text")} >= {evil, f"≠ {evil}"}


def test_the_picture_is_described_and_long_names_have_room():
    long = "a_name_of_fifty_letters_that_nobody_would_give_it__"
    tree = ET.fromstring(svg.draw([made("tokens", long), made("tokens", "+")], [{1}, {1}], "blocks"))
    assert (tree.get("role"), tree.find(f"{SVG}title").text) == ("img", "a title beside a title")
    assert "from the graph that runs" in tree.find(f"{SVG}desc").text
    box = next(g for g in tree.iter(f"{SVG}g") if (g.findtext(f"{SVG}title") or "").startswith(long))
    assert float(box.find(f"{SVG}rect").get("width")) > 7 * len(long)
    left, right = (float(tree.get("viewBox").split()[i]) for i in (0, 2))
    assert left == 0
    assert right > 7 * len(long)


def test_boxes_do_not_overlap():
    for name, depth in (("rwkv7", "layers"), ("mamba2", "operations")):
        tree = ET.fromstring(zoo.draw(name, depth=depth))
        boxes = [g.find(f"{SVG}rect") for g in tree.iter(f"{SVG}g") if g.find(f"{SVG}title") is not None]
        at = sorted(
            (float(b.get("y")), float(b.get("x")), float(b.get("width")), float(b.get("height"))) for b in boxes
        )
        for i, (y, x, width, height) in enumerate(at):
            for y2, x2, width2, _ in at[i + 1 :]:
                assert y2 >= y + height or x2 >= x + width or x >= x2 + width2


@pytest.mark.slow
def test_equal_models_give_equal_bytes():
    """In another process too, whatever the hashes and random state."""
    code = "import torch, zoo; torch.manual_seed(7); print(zoo.draw(['rwkv7', 'performer'], depth='layers'), end='')"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert done.stdout.decode() == zoo.draw(["rwkv7", "performer"], depth="layers")


def test_an_unknown_depth_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'layers'"):
        zoo.draw("pre_ln", depth="layer")


def test_graphs_that_no_label_explains_are_aligned():
    first, second = made("a", "b", "c", "d"), made("a", "e", "f", "g", "c", "h", "d")
    assert compare.differing(first, second) == ({1}, {1, 2, 3, 5})
    crossed = made("a", "b", "c", "d", edges=((0, 1), (0, 2), (1, 3), (2, 3)))
    marked = compare.differing(made("a", "b", "c", "d"), crossed)
    assert marked[0]
    assert marked[1]
