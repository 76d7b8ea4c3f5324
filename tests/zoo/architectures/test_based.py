"""Based: the Taylor features, their exactness where q and k are large, padding, initial values."""

import pytest
import torch

from zoo.architectures.based import BaseConv, Based, taylor
from zoo.contract import LayerContext, Unsupported

B, T, D = 3, 17, 12


def build(kind=Based, causal=True, **options):
    torch.manual_seed(0)
    mixer = kind(LayerContext(width=D, length=T, causal=causal), **options).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


@pytest.mark.parametrize("d", [1, 2, 5, 16])
def test_features_give_the_taylor_weights(d):
    q, k = torch.randn(2, 7, d, dtype=torch.float64)
    s = (q * k).sum(-1) / d**0.5
    torch.testing.assert_close((taylor(q) * taylor(k)).sum(-1), 1 + s + s**2 / 2)
    assert taylor(q).shape[-1] == 1 + d + d * (d + 1) // 2


@pytest.mark.parametrize("kind", [Based, BaseConv])
def test_padding_leaves_no_trace(kind):
    """Not even NaN; each row ends as it would alone, empty rows as they began."""
    mixer, x = build(kind)
    lengths = [T, 5, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    _, before = mixer(torch.randn_like(x), state=mixer.init_state(B, device="cpu", dtype=torch.float64))
    y, after = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask, state=before)
    assert y.isfinite().all()
    for row, n in enumerate(lengths):
        alone = {name: value[row : row + 1] for name, value in before.items()}
        for t in range(n):
            want, alone = mixer(x[row : row + 1, t : t + 1], state=alone)
            torch.testing.assert_close(y[row, t], want[0, 0])
        torch.testing.assert_close({name: value[row : row + 1] for name, value in after.items()}, alone)


def test_a_bidirectional_row_of_padding_is_finite():
    mixer, x = build(causal=False)
    y, _ = mixer(x, mask=torch.arange(T) < torch.tensor([[T], [5], [0]]))
    assert y.isfinite().all()
    assert not y[2].any()
    torch.testing.assert_close(y[1, :5], mixer(x[1:2, :5])[0][0])
    with pytest.raises(Unsupported):
        mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float64))


def test_outputs_are_averages_of_values():
    """Weights are positive, so no output leaves the range of the values seen, up to rounding of large products."""
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
        (BaseConv, {"kernel_size": 0}, "kernel size"),
    ],
)
def test_rejects_what_cannot_be(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(LayerContext(width=D, length=T), **options)
