"""Fast weights: the rules written out, linear attention as a special case, feature maps, padding, errors."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.fast_weights import FastWeights
from zoo.contract import LayerContext, Unsupported
from zoo.ops.linear_attention import recurrent

B, T, D = 2, 19, 12
OPTIONS = [
    {},
    {"rule": "sum"},
    {"feature_map": "dpfp", "nu": 3, "d_head": 5, "heads": 2},
    {"feature_map": "relu", "attention_norm": True},
    {"rule": "sum", "normalise": False, "feature_map": "dpfp", "nu": 1},
]


def build(**options):
    """A float64 mixer with random parameters, and inputs."""
    torch.manual_seed(0)
    mixer = FastWeights(LayerContext(width=D, length=T), **options).double()
    for p in mixer.parameters():
        p.data = torch.randn_like(p) * p[0].numel() ** -0.5
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cuts", [[1], [7, 9], range(1, T)], ids=str)
def test_pieces_continue_exactly(continues, options, cuts):
    mixer, x = build(**options)
    continues(mixer, x, cuts)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_padding_leaves_no_trace(leaves_no_trace, options):
    """NaN in padding changes nothing; each row ends as it would alone, an empty row as it began."""
    mixer, x = build(**options)
    leaves_no_trace(mixer, x)


def test_the_sum_rule_is_linear_attention():
    """Σ φ(q)·φ(k) v / Σ φ(q)·φ(k) with φ = elu + 1 (Katharopoulos et al. 2020), where nothing else is normalised."""
    mixer, x = build(rule="sum", normalise=False, scale=1.0, eps=0.0)
    q, k, v = mixer.slow_net(x).unflatten(-1, (4, 9)).transpose(1, 2).split(3, -1)
    scores = ((F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-1, -2)).tril()
    y = (scores / scores.sum(-1, keepdim=True)) @ v
    torch.testing.assert_close(mixer(x)[0], mixer.out_linear(y.transpose(1, 2).flatten(2)))
    unnormalised, _ = build(rule="sum", attention_norm=False)
    q, k = unnormalised.features(q), unnormalised.features(k)
    y = recurrent(q, k, v)[0] / 3**0.5
    torch.testing.assert_close(unnormalised(x)[0], unnormalised.out_linear(y.transpose(1, 2).flatten(2)))


def test_the_delta_rule_recalls_exactly():
    """With β = 1 and orthogonal features (axes, under ReLU) the second reading of a key gives its latest value."""
    mixer, _ = build(heads=1, feature_map="relu", scale=1.0)
    axes = torch.eye(D, dtype=torch.float64)
    with torch.no_grad():
        mixer.slow_net.weight.copy_(torch.cat([axes, axes, axes.roll(1, 0), torch.full((1, D), 100.0)]))
        mixer.out_linear.weight.copy_(axes)
    y, _ = mixer(torch.cat([axes, axes])[None])
    torch.testing.assert_close(y[0], torch.cat([axes.roll(1, 1)] * 2))


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
        ({"rule": "hebb"}, "rule"),
        ({"feature_map": "favor"}, "feature_map"),
        ({"feature_map": "dpfp", "nu": 6}, "between 1 and 5"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        FastWeights(LayerContext(width=D, length=T), **options)


def test_is_causal_only():
    with pytest.raises(Unsupported):
        FastWeights(LayerContext(width=D, length=T, causal=False))
