"""Linear attention: steps with nothing to average."""

import torch
from torch import nn

from zoo.architectures.linear_transformer import LinearAttention
from zoo.contract import LayerContext


def test_features_that_vanish_give_zero():
    """φ(−80) is 0 in float32: nothing to average, and ε keeps 0/0 away, also from the gradient."""
    mixer = LinearAttention(LayerContext(width=12, length=17), heads=1)
    for projection in (mixer.query_projection, mixer.key_projection):
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    x = torch.full((1, 17, 12), -80.0, requires_grad=True)
    y, _ = mixer(x)
    torch.testing.assert_close(y, mixer.out_projection.bias.expand_as(y))
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()
