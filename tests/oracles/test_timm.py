"""MLP-Mixer's token mixing, gMLP's spatial gate and ConvFormer's convolution, in their blocks, against timm's."""

import pytest
import torch

from zoo.architectures import recipe
from zoo.architectures.convformer import SeparableConvolution
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


@pytest.mark.parametrize(("T", "D", "columns", "kernel"), [(15, 6, 5, 7), (24, 10, 3, 3), (4, 8, 2, 5)])
def test_convformer(oracle, T, D, columns, kernel):
    theirs = pytest.importorskip("timm.models.metaformer")
    torch.manual_seed(0)
    peer = drawn(theirs.SepConv(D, kernel_size=kernel, padding=kernel // 2))
    context = LayerContext(width=D, length=T, causal=False)
    ours = SeparableConvolution(context, columns=columns, kernel=kernel)

    def on_grid(x):
        return peer(x.mT.unflatten(2, (-1, columns))).flatten(2).mT

    def renamed(official):
        names = {"pwconv1": "fc1", "act1": "act", "dwconv": "conv", "pwconv2": "fc2"}
        found = {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in official.items()}
        return {key: value[:, :, 0, 0] if key.startswith("fc") else value for key, value in found.items()}

    oracle("convformer", "timm, SepConv").layers(ours, peer, vectors(B, T, D), on_grid, renamed=renamed)
    assert recipe("convformer").residual == "pre"


def test_rows_of_the_grid_are_filled_up():
    """Rows below the last step are zero, as the grid's surroundings are; without columns all steps are one row."""
    torch.manual_seed(0)
    mixer = drawn(SeparableConvolution(LayerContext(width=6, length=20, causal=False), columns=4))
    x, zeros = vectors(B, 17, 6), torch.zeros(B, 3, 6)
    mask = torch.arange(20) < torch.tensor([[17], [17]])
    torch.testing.assert_close(mixer(x)[0], mixer(torch.cat([x, zeros], 1), mask=mask)[0][:, :17])
    row = drawn(SeparableConvolution(LayerContext(width=6, length=20, causal=False)))
    other = x.detach().clone()
    other[:, 0] += 1
    moved = (row(other)[0] - row(x)[0]).abs().amax((0, 2)) > 0
    assert moved.tolist() == [True] * 4 + [False] * 13
