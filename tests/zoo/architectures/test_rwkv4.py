"""RWKV-4's two mixers: the naive form's gradients, initialisation, parameter groups."""

import math

import pytest
import torch

from zoo.architectures import rwkv4
from zoo.architectures.rwkv4 import ChannelMix, TimeMix
from zoo.contract import LayerContext
from zoo.ops.wkv4 import wkv_naive

B, T, D = 3, 21, 6


def build():
    """A float64 mixer, every parameter random, and inputs."""
    torch.manual_seed(0)
    mixer = TimeMix(LayerContext(width=D, length=T)).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def test_gradients_equal_those_of_the_naive_form(monkeypatch):
    mixer, x = build()
    fast = torch.autograd.grad(mixer(x)[0].square().sum(), list(mixer.parameters()))
    monkeypatch.setattr(rwkv4, "wkv", wkv_naive)
    slow = torch.autograd.grad(mixer(x)[0].square().sum(), list(mixer.parameters()))
    torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize(("layer", "depth"), [(0, 1), (0, 4), (3, 4)])
def test_time_mix_initialisation(layer, depth):
    mixer = TimeMix(LayerContext(width=D, length=T, layer=layer, depth=depth))
    mixer.reset_parameters(layer=layer, depth=depth)
    r, s = (layer / (depth - 1) if depth > 1 else 0), 1 - layer / depth
    for i in range(D):
        assert mixer.time_decay[i].item() == pytest.approx(-5 + 8 * (i / (D - 1)) ** (0.7 + 1.3 * r), abs=1e-5)
        assert mixer.time_first[i].item() == pytest.approx(math.log(0.3) + ((i + 1) % 3 - 1) / 2, abs=1e-5)
        assert mixer.time_mix_k[i].item() == pytest.approx((i / D) ** s, abs=1e-5)
        assert mixer.time_mix_v[i].item() == pytest.approx((i / D) ** s + 0.3 * r, abs=1e-5)
        assert mixer.time_mix_r[i].item() == pytest.approx((i / D) ** (s / 2), abs=1e-5)
    for zero in (mixer.key, mixer.receptance, mixer.output):
        assert not zero.weight.any()
    torch.testing.assert_close(mixer.value.weight @ mixer.value.weight.T, torch.eye(D))


@pytest.mark.parametrize(("layer", "depth"), [(0, 1), (3, 4)])
def test_channel_mix_initialisation(layer, depth):
    mixer = ChannelMix(LayerContext(width=D, length=T, layer=layer, depth=depth), expand=4.0)
    expected = (torch.arange(D) / D) ** (1 - layer / depth)
    torch.testing.assert_close(mixer.time_mix_k.detach(), expected)
    torch.testing.assert_close(mixer.time_mix_r.detach(), expected)
    assert not mixer.value.weight.any()
    assert not mixer.receptance.weight.any()
    torch.testing.assert_close(mixer.key.weight.T @ mixer.key.weight, 4 * torch.eye(D))  # gain √(out/in) = 2


def test_hints():
    mixer, _ = build()
    hints = mixer.param_overrides()
    assert set(hints) == {name for name, _ in mixer.named_parameters() if name.startswith("time_")}
    assert all(hint.decay is False for hint in hints.values())
    scales = {name: hint.lr_scale for name, hint in hints.items() if hint.lr_scale != 1}
    assert scales == {"time_decay": 2.0, "time_first": 3.0}
    assert set(ChannelMix(LayerContext(width=D, length=T), expand=4.0).param_overrides()) == {
        "time_mix_k",
        "time_mix_r",
    }
