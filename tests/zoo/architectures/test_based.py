"""Based: the Taylor features, and their exactness where q and k are large."""

import pytest
import torch
from torch import nn

from zoo.architectures.based import Based, taylor
from zoo.contract import LayerContext

from .mixers import drawn, vectors


@pytest.mark.parametrize("d", [1, 2, 5, 16])
def test_features_give_the_taylor_weights(d):
    q, k = torch.randn(2, 7, d, dtype=torch.float64)
    s = (q * k).sum(-1) / d**0.5
    torch.testing.assert_close((taylor(q) * taylor(k)).sum(-1), 1 + s + s**2 / 2)
    assert taylor(q).shape[-1] == 1 + d + d * (d + 1) // 2


def test_outputs_are_averages_of_values():
    """Weights are positive, so no output leaves the range of the values seen, up to rounding of large products."""
    mixer, x = drawn(Based(LayerContext(width=12, length=17), heads=1, feature_dim=4)), 30 * vectors(3, 17, 12)
    nn.init.eye_(mixer.v_proj.weight)
    nn.init.eye_(mixer.o_proj.weight)
    y, _ = mixer(x)
    assert (y <= x.cummax(1).values + 1e-6).all()
    assert (y >= x.cummin(1).values - 1e-6).all()
