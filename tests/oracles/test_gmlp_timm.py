"""gMLP against timm's SpatialGatingBlock: the layer, and the block around it."""

import pytest
import torch
from torch import nn

from zoo.architectures import recipe
from zoo.architectures.gmlp import SpatialGate
from zoo.contract import LayerContext
from zoo.layers.norms import make_norm

theirs = pytest.importorskip("timm.models.mlp_mixer")

B = 2


@pytest.mark.parametrize(("T", "D", "expand"), [(13, 8, 6), (1, 6, 2), (9, 10, 1.2)])
def test_same_weights_give_the_same_outputs_and_gradients(oracle, T, D, expand):
    torch.manual_seed(0)
    peer = theirs.SpatialGatingBlock(D, T, mlp_ratio=expand).double()
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.5)
    ours = SpatialGate(LayerContext(width=D, length=T, causal=False), expand=expand).double()
    ours.load_state_dict(peer.mlp_channels.state_dict())
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    assert recipe("gmlp").residual == "pre"
    norm = make_norm(recipe("gmlp").norm, D).double()
    norm.load_state_dict(peer.norm.state_dict())

    have, want = x + ours(norm(x))[0], peer(x)
    proof = oracle("gmlp", "timm, SpatialGatingBlock")
    proof.outputs(have, want)
    weights = torch.randn_like(want)
    a = {"x": x, "norm": norm.weight, **dict(ours.named_parameters())}
    b = {"x": x, "norm": peer.norm.weight, **dict(peer.mlp_channels.named_parameters())}
    proof.gradients(
        dict(zip(a, torch.autograd.grad((have * weights).sum(), list(a.values())), strict=True)),
        dict(zip(b, torch.autograd.grad((want * weights).sum(), list(b.values())), strict=True)),
    )


def test_the_gate_starts_as_timm_has_it():
    torch.manual_seed(0)
    peer = theirs.SpatialGatingUnit(64, 40)
    peer.init_weights()
    ours = SpatialGate(LayerContext(width=32, length=40, causal=False), expand=2)
    ours.reset_parameters(layer=0, depth=8)
    assert ours.gate.proj.weight.std().item() == pytest.approx(peer.proj.weight.std().item(), rel=0.1)
    assert torch.equal(ours.gate.proj.bias, peer.proj.bias)
    assert ours.gate.norm.eps == peer.norm.eps
