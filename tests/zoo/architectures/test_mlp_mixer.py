"""Token mixing: one MLP along time for all channels, of one length."""

import pytest
import torch
from torch import nn

from zoo.architectures.mlp_mixer import TokenMLP
from zoo.contract import LayerContext

T, D = 9, 8


def build(**options):
    torch.manual_seed(0)
    mixer = TokenMLP(LayerContext(width=D, length=T, causal=False), **options).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mixer


def inputs(seed=1):
    return torch.randn(2, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_channel_goes_through_the_same_mlp_along_time():
    mixer, x = build(), inputs()
    mlp = nn.Sequential(mixer.fc1, nn.GELU(), mixer.fc2)
    y = mixer(x)[0]
    for i in range(D):
        torch.testing.assert_close(y[:, :, i], mlp(x[:, :, i]), rtol=1e-12, atol=1e-12)


def test_depends_on_the_order_of_steps_but_not_of_channels():
    mixer, x = build(), inputs()
    steps, channels = (torch.randperm(n, generator=torch.Generator().manual_seed(2)) for n in (T, D))
    assert (mixer(x[:, steps])[0] - mixer(x)[0][:, steps]).abs().max() > 1e-2
    torch.testing.assert_close(mixer(x[:, :, channels])[0], mixer(x)[0][:, :, channels], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.5, 4), (1.3, 10)])
def test_hidden_width_follows_the_ratio(ratio, hidden):
    assert build(tokens_ratio=ratio).fc1.weight.shape == (hidden, T)


def test_initial_weights_have_lecun_variance():
    mixer = TokenMLP(LayerContext(width=400, length=300, causal=False))
    mixer.reset_parameters(layer=0, depth=1)
    for linear in (mixer.fc1, mixer.fc2):
        assert linear.weight.std().item() == pytest.approx(linear.in_features**-0.5, rel=0.02)
        assert linear.bias.abs().max() == 0


@pytest.mark.parametrize("length", [T - 1, T + 1])
def test_another_length_is_refused(length):
    with pytest.raises(ValueError, match=f"exactly {T}"):
        build()(torch.zeros(1, length, D, dtype=torch.float64))


def test_bad_options_fail_at_build():
    with pytest.raises(ValueError, match="leaves no hidden units"):
        build(tokens_ratio=0.01)
