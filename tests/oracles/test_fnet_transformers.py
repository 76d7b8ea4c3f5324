"""FNet against transformers' FNetLayer: mixing, feed-forward and Post-LN, with the blocks that zoo.build makes."""

import pytest
import torch
from torch import nn

import zoo
from zoo.architectures.fnet import Fourier
from zoo.contract import LayerContext, Shape

theirs = pytest.importorskip("transformers.models.fnet.modeling_fnet")


def encoder(D, depth):
    config = theirs.FNetConfig(
        hidden_size=D,
        intermediate_size=4 * D,
        num_hidden_layers=depth,
        hidden_dropout_prob=0,
    )
    peer = theirs.FNetEncoder(config).double()
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return peer.eval()


@pytest.mark.parametrize(("T", "D"), [(13, 8), (12, 6), (7, 5), (1, 4), (6, 1)])
def test_mixing_equals_the_official_transform(oracle, T, D):
    x = torch.randn(2, T, D, dtype=torch.float64, requires_grad=True)
    mixer = Fourier(LayerContext(width=D, length=T, causal=False))
    have, want = mixer(x)[0], theirs.FNetBasicFourierTransform(theirs.FNetConfig())(x)[0]
    proof, weights = oracle("fnet", "transformers, FNetBasicFourierTransform"), torch.randn_like(want)
    proof.outputs(have, want)
    a, b = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (have, want))
    proof.gradients({"x": a}, {"x": b})


def test_a_stack_equals_the_official_encoder(oracle):
    torch.manual_seed(0)
    T, D, depth = 12, 16, 2
    peer = encoder(D, depth)
    ours = zoo.build("fnet", "classify", shape=Shape(length=T, outputs=3, vocab=5, width=D, depth=depth)).double()
    there = {"sublayers.{0}.norm": "fourier.output.LayerNorm", "sublayers.{1}.norm": "output.LayerNorm"}
    there |= {"sublayers.{1}.inner.up": "intermediate.dense", "sublayers.{1}.inner.down": "output.dense"}
    names = {
        f"{here.format(2 * i, 2 * i + 1)}.{part}": f"layer.{i}.{other}.{part}"
        for i in range(depth)
        for here, other in there.items()
        for part in ("weight", "bias")
    }
    theirs_by_name, own = dict(peer.named_parameters()), dict(ours.backbone.named_parameters())
    assert set(own) == set(names)
    assert set(theirs_by_name) == set(names.values())
    ours.backbone.load_state_dict({here: theirs_by_name[other] for here, other in names.items()})
    x = torch.randn(2, T, D, dtype=torch.float64, requires_grad=True)
    have, want = ours.backbone(x)[0], peer(x, return_dict=False)[0]
    proof, weights = oracle("fnet", "transformers, FNetEncoder"), torch.randn_like(want)
    proof.outputs(have, want)
    a = torch.autograd.grad((have * weights).sum(), [x, *(own[name] for name in names)])
    b = torch.autograd.grad((want * weights).sum(), [x, *(theirs_by_name[name] for name in names.values())])
    proof.gradients(dict(zip(["x", *names], a, strict=True)), dict(zip(["x", *names], b, strict=True)))
