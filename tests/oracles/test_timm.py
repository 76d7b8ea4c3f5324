"""MLP-Mixer's token mixing and gMLP's spatial gate, in their blocks, against timm's."""

import pytest
import torch

from zoo.architectures import recipe
from zoo.architectures.gmlp import SpatialGate
from zoo.architectures.mlp_mixer import TokenMLP
from zoo.contract import LayerContext
from zoo.layers.norms import make_norm

from .compare import drawn, leaves, vectors

B = 2


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip("timm.models.mlp_mixer")


@pytest.mark.parametrize(("D", "ratio"), [(32, 0.5), (10, 1.5)])
def test_mlp_mixer(oracle, theirs, D, ratio):
    torch.manual_seed(0)
    T = 13
    peer = drawn(theirs.MixerBlock(D, T, mlp_ratio=(ratio, 4.0)), 0.3)
    ours = TokenMLP(LayerContext(width=D, length=T, causal=False), tokens_ratio=ratio).double()
    ours.load_state_dict(peer.mlp_tokens.state_dict())
    x = vectors(B, T, D)
    y = x + ours(peer.norm1(x))[0]
    y = y + peer.mlp_channels(peer.norm2(y))
    oracle("mlp_mixer", "timm, MixerBlock").equal(y, peer(x), leaves(ours, x=x), leaves(peer.mlp_tokens, x=x))


@pytest.mark.parametrize(("T", "D", "expand"), [(13, 8, 6), (1, 6, 2), (9, 10, 1.2)])
def test_gmlp(oracle, theirs, T, D, expand):
    torch.manual_seed(0)
    peer = drawn(theirs.SpatialGatingBlock(D, T, mlp_ratio=expand))
    ours = SpatialGate(LayerContext(width=D, length=T, causal=False), expand=expand).double()
    ours.load_state_dict(peer.mlp_channels.state_dict())
    x = vectors(B, T, D)
    assert recipe("gmlp").residual == "pre"
    norm = make_norm(recipe("gmlp").norm, D).double()
    norm.load_state_dict(peer.norm.state_dict())
    own, official = leaves(ours, x=x, norm=norm.weight), leaves(peer.mlp_channels, x=x, norm=peer.norm.weight)
    oracle("gmlp", "timm, SpatialGatingBlock").equal(x + ours(norm(x))[0], peer(x), own, official)


def test_the_gate_starts_as_timm_has_it(theirs):
    torch.manual_seed(0)
    peer = theirs.SpatialGatingUnit(64, 40)
    peer.init_weights()
    ours = SpatialGate(LayerContext(width=32, length=40, causal=False), expand=2)
    ours.reset_parameters(layer=0, depth=8)
    assert ours.gate.proj.weight.std().item() == pytest.approx(peer.proj.weight.std().item(), rel=0.1)
    assert torch.equal(ours.gate.proj.bias, peer.proj.bias)
    assert ours.gate.norm.eps == peer.norm.eps
