"""gMLP: the gate as it starts."""

import torch

from zoo.architectures.gmlp import SpatialGate
from zoo.contract import LayerContext

from .mixers import vectors


def test_at_first_it_mixes_nothing():
    mixer, x = SpatialGate(LayerContext(width=6, length=7, causal=False), expand=2).double(), vectors(2, 7, 6)
    mixer.reset_parameters(layer=0, depth=4)
    assert mixer.gate.proj.weight.abs().max() < 1e-5
    other = x.clone()
    other[:, 0] = 100
    torch.testing.assert_close(mixer(other)[0][:, 1:], mixer(x)[0][:, 1:], rtol=1e-4, atol=1e-4)
