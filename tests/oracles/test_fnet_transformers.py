"""FNet against transformers' FNetLayer: mixing, feed-forward and Post-LN, with the blocks that zoo.build makes."""

import pytest
import torch

import zoo
from zoo.architectures.fnet import Fourier
from zoo.contract import LayerContext, Shape

from .compare import drawn, swapped, vectors

theirs = pytest.importorskip("transformers.models.fnet.modeling_fnet")


@pytest.mark.parametrize(("T", "D"), [(13, 8), (12, 6), (7, 5), (1, 4), (6, 1)])
def test_mixing_equals_the_official_transform(oracle, T, D):
    x, mixer = vectors(2, T, D), Fourier(LayerContext(width=D, length=T, causal=False))
    want = theirs.FNetBasicFourierTransform(theirs.FNetConfig())(x)[0]
    oracle("fnet", "transformers, FNetBasicFourierTransform").equal(mixer(x)[0], want, {"x": x})


def test_a_stack_equals_the_official_encoder(oracle):
    torch.manual_seed(0)
    T, D, depth = 12, 16, 2
    config = theirs.FNetConfig(hidden_size=D, intermediate_size=4 * D, num_hidden_layers=depth, hidden_dropout_prob=0)
    peer = drawn(theirs.FNetEncoder(config), 0.3).eval()
    ours = zoo.build("fnet", "classify", shape=Shape(length=T, outputs=3, vocab=5, width=D, depth=depth)).backbone
    there = {"sublayers.{0}.norm": "fourier.output.LayerNorm", "sublayers.{1}.norm": "output.LayerNorm"}
    there |= {"sublayers.{1}.inner.up": "intermediate.dense", "sublayers.{1}.inner.down": "output.dense"}
    names = {
        f"{here.format(2 * i, 2 * i + 1)}.{part}": f"layer.{i}.{other}.{part}"
        for i in range(depth)
        for here, other in there.items()
        for part in ("weight", "bias")
    }
    proof, x = oracle("fnet", "transformers, FNetEncoder"), vectors(2, T, D)
    proof.layers(ours, peer, x, lambda x: peer(x, return_dict=False)[0], renamed=swapped(names))
