"""The recorded graph is the model: run as a program, it computes the same logits; each arrow carries numbers."""

import pytest
import torch
from torch import nn

from zoo.contract import Batch, quiet
from zoo.figures import figure
from zoo.figures.trace import reads, trace
from zoo.layers.mixture_of_experts import MixtureOfExperts
from zoo.layers.positions.at_input import Learned
from zoo.ops import attention, forms

from ..models import randomise


def recorded(name, layers=1, role=None, seed=0):
    """A random model, its batch, and the graph of one pass."""
    torch.manual_seed(seed)
    model = randomise(figure.build(name, role or figure.first_role(name, {}), layers, {}), 0.1)
    batch = figure.batch_of(model)
    return model, batch, trace(model, batch)


def logits(model, batch):
    with quiet(model), forms.torch_alone():
        torch.manual_seed(0)
        return model(batch)


def again(traced, batch):
    with torch.no_grad():
        torch.manual_seed(0)
        return traced(*batch.arrays().values())


def test_the_graph_is_a_program_that_computes_the_logits(architecture):
    """Of other tokens too: nothing that the tokens decide is missing, but where a router counts them."""
    model, batch, traced = recorded(architecture)
    assert torch.equal(again(traced, batch), logits(model, batch))
    other = figure.batch_of(model)
    routed = any(isinstance(module, MixtureOfExperts) for module in model.modules())
    assert bool(traced.meta["fixed"]) == routed
    if not routed:
        assert not torch.equal(other.inputs, batch.inputs)
        assert torch.equal(again(traced, other), logits(model, other))


@pytest.mark.parametrize("name", ["pre_ln", "post_ln", "rwkv7", "mamba2", "griffin"])
def test_every_arrow_carries_numbers(name):
    """What an operation is said to read changes its result, and what it is not said to read was there before."""
    _, batch, traced = recorded(name)
    values = dict[torch.fx.Node, object]()

    class Keep(torch.fx.Interpreter):
        def run_node(self, node):
            values[node] = super().run_node(node)
            return values[node]

    with torch.no_grad():
        Keep(traced).run(*batch.arrays().values())
    checked = 0
    for node in traced.graph.nodes:
        if not (node.op.startswith("call") and is_float(values[node])):
            continue
        elsewhere = {source: noise(values[source]) for source in node.all_input_nodes}
        for source in reads(node):
            if is_float(values[source]) and source not in node.meta["after"]:
                changed = {**elsewhere, source: noise(values[source])}
                assert not torch.equal(call(node, changed), call(node, elsewhere)), (node, source)
                checked += 1
    assert checked > 20


def is_float(x):
    return isinstance(x, torch.Tensor) and x.is_floating_point() and x.numel() > 0


def noise(x):
    """Random numbers for a tensor of numbers: a product with the zeros of an initial state would hide what it reads."""
    return torch.rand_like(x) if is_float(x) else x


def call(node, values):
    """What an operation makes of other numbers; none is changed."""
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    args = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    with torch.no_grad():
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


class Writes(nn.Module):
    """Writes into memory that is read later, once directly and once through a view."""

    def forward(self, batch):
        x = torch.zeros(2, 3)
        view = x[0]
        x[1] = batch.inputs
        view += 2 * batch.inputs
        unused = x * 7  # noqa: F841
        return x + torch.zeros_like(batch.inputs)


def test_what_is_written_in_place_reaches_who_reads_the_memory():
    traced = trace(Writes(), Batch(inputs=torch.arange(3.0)))
    assert torch.equal(traced(torch.tensor([1.0, 2.0, 5.0])), torch.tensor([[2.0, 4.0, 10.0], [1.0, 2.0, 5.0]]))
    by_name = {node.name: node for node in traced.graph.nodes}
    last = list(traced.graph.nodes)[-2]
    writers = {node for node in by_name.values() if node.target in ("__setitem__", "add_", "__iadd__")}
    assert len(writers) == 2
    seen, open_ = set(), [last]
    while open_:
        node = open_.pop()
        seen.add(node)
        open_ += [source for source in reads(node) if source not in seen]
    assert writers < seen
    assert not any(7 in node.args for node in traced.graph.nodes), "what nobody reads is left out"


def test_it_leaves_random_state_weights_and_modes_alone():
    torch.manual_seed(3)
    model = figure.build("performer", "lm", 1, {}).train()
    before = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    batch = Batch(inputs=torch.zeros(2, 6, dtype=torch.long))
    trace(model, batch)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert model.training
    assert all(torch.equal(v, before[1][k]) for k, v in model.state_dict().items())
    assert not forms.failures


@pytest.mark.slow
def test_torch_export_sees_the_same_operations(monkeypatch):
    """An independent recorder: the operators that compute something, in order."""
    monkeypatch.setattr(Learned, "check", lambda *_: None)  # these decide by numbers, which torch.export refuses
    monkeypatch.setattr(attention, "finite_or", lambda y, _: y)
    model, batch, traced = recorded("pre_ln")

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, inputs):
            return self.model(Batch(inputs=inputs))

    with torch.no_grad(), forms.torch_alone():
        exported = torch.export.export(Whole(), (batch.inputs,), strict=False)
    wanted = ("linear", "layer_norm", "embedding", "gelu", "scaled_dot_product_attention", "add")

    def names(graph, of):
        found = [of(node) for node in graph.nodes if node.op.startswith("call")]
        return [name for name in found if name in wanted]

    ours = names(traced.graph, lambda node: getattr(node.target, "__name__", node.target))
    theirs = names(exported.graph, lambda node: str(node.target).split(".")[1] if "." in str(node.target) else "")
    assert ours == theirs
    assert len(ours) > 8
