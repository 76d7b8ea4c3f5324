"""MLP-Mixer's token mixing, and a whole block around it, against timm's MixerBlock."""

import pytest
import torch
from torch import nn

from zoo.architectures.mlp_mixer import TokenMLP
from zoo.contract import LayerContext

theirs = pytest.importorskip("timm.models.mlp_mixer")

B, T = 2, 13


@pytest.mark.parametrize(("D", "ratio"), [(32, 0.5), (10, 1.5)])
def test_same_weights_give_the_same_outputs_and_gradients(oracle, D, ratio):
    torch.manual_seed(0)
    peer = theirs.MixerBlock(D, T, mlp_ratio=(ratio, 4.0)).double()
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = TokenMLP(LayerContext(width=D, length=T, causal=False), tokens_ratio=ratio).double()
    ours.load_state_dict(peer.mlp_tokens.state_dict())
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)

    def block(x):
        x = x + ours(peer.norm1(x))[0]
        return x + peer.mlp_channels(peer.norm2(x))

    have, want = block(x), peer(x)
    proof = oracle("mlp_mixer", "timm, MixerBlock")
    proof.outputs(have, want)
    weights = torch.randn_like(want)
    a, b = ({"x": x, **dict(module.named_parameters())} for module in (ours, peer.mlp_tokens))
    proof.gradients(
        dict(zip(a, torch.autograd.grad((have * weights).sum(), list(a.values())), strict=True)),
        dict(zip(b, torch.autograd.grad((want * weights).sum(), list(b.values())), strict=True)),
    )
