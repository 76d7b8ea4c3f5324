"""Fast weights: recall under the delta rule, features that vanish."""

import pytest
import torch

from zoo.architectures.fast_weights import FastWeights
from zoo.contract import LayerContext

D = 12


def build(**options):
    return FastWeights(LayerContext(width=D, length=19), **options).double()


def test_the_delta_rule_recalls_exactly():
    """With β = 1 and orthogonal features (axes, under ReLU) the second reading of a key gives its latest value."""
    mixer, axes = build(heads=1, feature_map="relu"), torch.eye(D, dtype=torch.float64)
    with torch.no_grad():
        mixer.slow_net.weight.copy_(torch.cat([axes, axes, axes.roll(1, 0), torch.full((1, D), 100.0)]))
        mixer.out_linear.weight.copy_(D**0.5 * axes)  # outputs are divided by √d
    y, _ = mixer(torch.cat([axes, axes])[None])
    torch.testing.assert_close(y[0], torch.cat([axes.roll(1, 1)] * 2))


@pytest.mark.parametrize("feature_map", ["elu", "relu", "dpfp"])
def test_features_sum_to_one_and_vanish_safely(feature_map):
    x = torch.cat([torch.rand(5, 3) - torch.tensor([0.0, 0.0, 1.0]), torch.full((1, 3), -1e4)]).requires_grad_()
    phi = build(feature_map=feature_map).features(x)
    torch.testing.assert_close(phi.sum(-1)[:5], torch.ones(5))
    phi.square().sum().backward()
    assert bool(x.grad.isfinite().all())
