"""RWKV-6's two mixers: what differs from RWKV-5's."""

import pytest
import torch

from zoo.architectures import rwkv5
from zoo.architectures.rwkv6 import ChannelMix, TimeMix
from zoo.contract import LayerContext
from zoo.layers import rwkv
from zoo.ops.linear_attention import recurrent

B, T, D = 3, 21, 12


def build(**options):
    """A float64 mixer, every parameter random, and inputs."""
    torch.manual_seed(0)
    mixer = TimeMix(
        LayerContext(width=D, length=T), **{"head_size": 4, "mix_lora": 2, "decay_lora": 3, **options}
    ).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer, dtype=torch.float64):
    return mixer.init_state(B, device="cpu", dtype=dtype)


@pytest.mark.parametrize("dim_att", [None, 20])
def test_equals_the_naive_recurrence(monkeypatch, dim_att):
    """Outputs, state and gradients, from a state and under a mask."""
    mixer, x = build(dim_att=dim_att)
    mask = torch.arange(T) < torch.tensor([T, 5, 0])[:, None]
    before = mixer(torch.randn_like(x), state=start(mixer))[1]
    leaves = [*mixer.parameters(), *(value.detach().requires_grad_() for value in before.values())]
    before = dict(zip(before, leaves[-2:], strict=True))

    def run():
        y, after = mixer(x, mask=mask, state=before)
        loss = y[mask].square().sum() + sum(value.square().sum() for value in after.values())
        return y[mask], after, torch.autograd.grad(loss, leaves)

    fast = run()
    monkeypatch.setattr(rwkv, "linear_attention", recurrent)
    torch.testing.assert_close(fast, run())


def test_without_its_low_rank_parts_it_is_rwkv5():
    mixer, x = build()
    peer = rwkv5.TimeMix(LayerContext(width=D, length=T), head_size=4).double()
    torch.nn.init.zeros_(mixer.time_maa_w1)
    torch.nn.init.zeros_(mixer.time_decay_w1)
    own = dict(mixer.named_parameters())
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            there = own[name.replace("time_mix", "time_maa")]
            value = there.reshape(parameter.shape)
            parameter.copy_(1 - value if "time_mix" in name else value)
    torch.testing.assert_close(mixer(x)[0], peer(x)[0])


@pytest.mark.parametrize(("layer", "depth"), [(0, 1), (0, 4), (3, 4)])
def test_time_mix_initialisation(layer, depth):
    mixer = TimeMix(LayerContext(width=D, length=T, layer=layer, depth=depth), head_size=4)
    assert mixer.time_maa_w1.shape == (D, 160)
    assert mixer.time_decay_w1.shape == (D, 64)
    r, s = (layer / (depth - 1) if depth > 1 else 0), 1 - layer / depth
    for i in range(D):
        mu = {c: getattr(mixer, f"time_maa_{c}")[0, 0, i].item() for c in "xwkvrg"}
        one, half = 1 - (i / D) ** s, 1 - (i / D) ** (s / 2)
        want = {"x": one, "w": one, "k": one, "v": one - 0.3 * r, "r": half, "g": half}
        assert mu == pytest.approx(want, abs=1e-5)
        decay = -6 + 5 * (i / (D - 1)) ** (0.7 + 1.3 * r)
        assert mixer.time_decay[0, 0, i].item() == pytest.approx(decay, abs=1e-5)
    assert not mixer.time_maa_w1.any()
    assert not mixer.time_decay_w1.any()
    for second in (mixer.time_maa_w2, mixer.time_decay_w2):
        assert 0.009 < second.abs().max() <= 0.01
    assert not mixer.output.weight.any()
    torch.testing.assert_close(mixer.key.weight @ mixer.key.weight.T, 0.01 * torch.eye(D))


def test_channel_mix_initialisation():
    mixer = ChannelMix(LayerContext(width=D, length=T, layer=1, depth=4), expand=3.5)
    expected = 1 - (torch.arange(D) / D) ** 0.75
    torch.testing.assert_close(mixer.time_maa_k.detach()[0, 0], expected)
    torch.testing.assert_close(mixer.time_maa_r.detach()[0, 0], expected)
    assert set(mixer.param_overrides()) == {"time_maa_k", "time_maa_r"}


def test_hints():
    mixer, _ = build()
    hints = mixer.param_overrides()
    assert set(hints) == {name for name, _ in mixer.named_parameters() if name.startswith("time_")}
    assert all(hint.decay is False for hint in hints.values())
    assert {name: hint.lr_scale for name, hint in hints.items() if hint.lr_scale != 1} == {"time_decay": 2}
