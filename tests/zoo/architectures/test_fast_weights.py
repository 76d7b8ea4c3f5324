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
    mixer, axes = build(heads=1, feature_map="relu", scale=1.0), torch.eye(D, dtype=torch.float64)
    with torch.no_grad():
        mixer.slow_net.weight.copy_(torch.cat([axes, axes, axes.roll(1, 0), torch.full((1, D), 100.0)]))
        mixer.out_linear.weight.copy_(axes)
    y, _ = mixer(torch.cat([axes, axes])[None])
    torch.testing.assert_close(y[0], torch.cat([axes.roll(1, 1)] * 2))


<<<<<<< HEAD
@pytest.mark.parametrize("feature_map", ["elu", "relu", "dpfp"])
def test_features_sum_to_one_and_vanish_safely(feature_map):
    x = torch.cat([torch.rand(5, 3) - torch.tensor([0.0, 0.0, 1.0]), torch.full((1, 3), -1e4)]).requires_grad_()
    phi = build(feature_map=feature_map).features(x)
    torch.testing.assert_close(phi.sum(-1)[:5], torch.ones(5))
    phi.square().sum().backward()
    assert bool(x.grad.isfinite().all())
=======
def test_dpfp_is_the_papers():
    """φ(x)_{iν} = r_i r_{i−ν} over r = relu([x, −x]), then sum-normalised; all non-negative and sparse."""
    mixer, _ = build(feature_map="dpfp", nu=2, heads=2)
    x = torch.randn(6, dtype=torch.float64)
    r = torch.cat([x, -x]).clamp(min=0)
    want = torch.stack([r[i] * r[i - shift] for shift in (1, 2) for i in range(12)])
    torch.testing.assert_close(mixer.features(x), want / want.sum())
    assert not bool(mixer.features(torch.zeros(6)).any())


def test_features_sum_to_one_and_vanish_safely():
    for feature_map in ("elu", "relu", "dpfp"):
        mixer, _ = build(feature_map=feature_map)
        x = torch.cat([torch.rand(5, 3) - torch.tensor([0.0, 0.0, 1.0]), torch.full((1, 3), -1e4)]).requires_grad_()
        phi = mixer.features(x)
        torch.testing.assert_close(phi.sum(-1)[:5], torch.ones(5))
        phi.square().sum().backward()
        assert bool(x.grad.isfinite().all())


def test_initial_values():
    mixer = FastWeights(LayerContext(width=256, length=T))
    mixer.reset_parameters(layer=0, depth=8)
    assert mixer.slow_net.weight.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert mixer.out_linear.weight.std().item() == pytest.approx(1 / 64, rel=0.05)
    deep = FastWeights(LayerContext(width=256, length=T, gain=0.25))
    q, k, v, b = deep.slow_net.weight.unflatten(0, (4, -1)).split([64, 64, 64, 1], dim=1)
    for part, std in ((q, 1), (k, 1), (v, 0.25), (b, 1), (deep.out_linear.weight, 0.25)):
        assert part.std().item() == pytest.approx(std / 16, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"heads": 0}, "does not divide"),
        ({"d_head": 0}, "d_head"),
        ({"feature_map": "dpfp", "nu": 6}, "between 1 and 5"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        FastWeights(LayerContext(width=D, length=T), **options)


def test_is_causal_only():
    with pytest.raises(Unsupported):
        FastWeights(LayerContext(width=D, length=T, causal=False))
>>>>>>> w4
