"""MLP-Mixer's token mixing, and a whole block around it, against timm's MixerBlock."""

import pytest
import torch
from torch import nn

from zoo.contract import Site
from zoo.mixers.token_mlp import TokenMLP

theirs = pytest.importorskip("timm.models.mlp_mixer")

B, T, D = 2, 13, 32


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item()


def test_same_weights_give_the_same_outputs_and_gradients():
    torch.manual_seed(0)
    peer = theirs.MixerBlock(D, T)
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = TokenMLP(Site(width=D, length=T, causal=False))
    ours.load_state_dict(peer.mlp_tokens.state_dict())
    x = torch.randn(B, T, D, requires_grad=True)

    def block(x):
        x = x + ours(peer.norm1(x))[0]
        return x + peer.mlp_channels(peer.norm2(x))

    have, want = block(x), peer(x)
    assert relative(have, want) < 1e-5
    weights = torch.randn_like(want)
    a = torch.autograd.grad((have * weights).sum(), [x, *ours.parameters()])
    b = torch.autograd.grad((want * weights).sum(), [x, *peer.mlp_tokens.parameters()])
    for mine, other in zip(a, b, strict=True):
        assert relative(mine, other) < 1e-4
