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
<<<<<<< HEAD
    mixer, x = drawn(Based(LayerContext(width=12, length=17), heads=1, feature_dim=4)), 30 * vectors(3, 17, 12)
    nn.init.eye_(mixer.v_proj.weight)
    nn.init.eye_(mixer.o_proj.weight)
    y, _ = mixer(x)
    assert (y <= x.cummax(1).values + 1e-6).all()
    assert (y >= x.cummin(1).values - 1e-6).all()
=======
    mixer, x = build(heads=1, feature_dim=4)
    torch.nn.init.eye_(mixer.v_proj.weight)
    torch.nn.init.eye_(mixer.o_proj.weight)
    y, _ = mixer(30 * x)
    assert (y <= 30 * x.cummax(1).values + 1e-6).all()
    assert (y >= 30 * x.cummin(1).values - 1e-6).all()


def test_initialisation():
    mixer = Based(LayerContext(width=256, length=T))
    mixer.reset_parameters(layer=0, depth=8)
    for name, parameter in mixer.named_parameters():
        assert parameter.std().item() == pytest.approx(1 / 16 / (4 if name.startswith("o_") else 1), rel=0.05)
    conv = BaseConv(LayerContext(width=64, length=T))
    conv.reset_parameters(layer=0, depth=2)
    assert conv.in_proj.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert conv.out_proj.weight.std().item() == pytest.approx(128**-0.5 / 2, rel=0.05)
    assert 0.5 < conv.conv1.weight.abs().max() <= 3**-0.5
    assert not conv.in_proj.bias.any()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Based, {"heads": 5}, "width 12"),
        (Based, {"feature_dim": 0}, "feature_dim"),
        (Based, {"eps": -1.0}, "eps"),
        (BaseConv, {"expand_proj": 0}, "two halves"),
        (BaseConv, {"kernel_size": 0}, "kernel_size"),
    ],
)
def test_rejects_what_cannot_be(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(LayerContext(width=D, length=T), **options)
>>>>>>> w4
