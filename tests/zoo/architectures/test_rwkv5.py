"""RWKV-5's two mixers: against the naive recurrence, initialisation, parameter groups, options."""

import pytest
import torch

from zoo.architectures.rwkv5 import ChannelMix, TimeMix
from zoo.contract import LayerContext
from zoo.layers import rwkv
from zoo.ops.linear_attention import recurrent

B, T, D = 3, 21, 12


def build(**options):
    """A float64 mixer, every parameter random, and inputs."""
    torch.manual_seed(0)
    mixer = TimeMix(LayerContext(width=D, length=T), **{"head_size": 4, **options}).double()
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


@pytest.mark.parametrize(("layer", "depth"), [(0, 1), (0, 4), (3, 4)])
def test_time_mix_initialisation(layer, depth):
    mixer = TimeMix(LayerContext(width=D, length=T, layer=layer, depth=depth), head_size=4)
    torch.nn.init.constant_(mixer.ln_x.bias, 1.0)
    mixer.reset_parameters(layer=layer, depth=depth)
    r, s = (layer / (depth - 1) if depth > 1 else 0), 1 - layer / depth
    for i in range(D):
        h, n, z = i // 4, i % 4, ((i + 1) % 3 - 1) * 0.1
        assert mixer.time_decay[h, n].item() == pytest.approx(-6 + 5 * (i / (D - 1)) ** (0.7 + 1.3 * r), abs=1e-5)
        assert mixer.time_faaaa[h, n].item() == pytest.approx(r * (1 - i / (D - 1)) + z, abs=1e-5)
        mixes = {c: getattr(mixer, f"time_mix_{c}")[0, 0, i].item() for c in "kvrg"}
        want = {"k": (i / D) ** s, "v": (i / D) ** s + 0.3 * r, "r": (i / D) ** (s / 2), "g": (i / D) ** (s / 2)}
        assert mixes == pytest.approx(want, abs=1e-5)
    for name, gain in {"receptance": 1, "key": 0.1, "value": 1, "gate": 0.1, "output": 0}.items():
        W = getattr(mixer, name).weight
        torch.testing.assert_close(W @ W.T, gain**2 * torch.eye(D))
    torch.testing.assert_close(mixer.ln_x.weight.detach(), torch.full((D,), ((1 + layer) / depth) ** 0.7))
    assert not mixer.ln_x.bias.any()
    assert mixer.ln_x.eps == pytest.approx(64e-5)


@pytest.mark.parametrize(("layer", "depth"), [(0, 1), (3, 4)])
def test_channel_mix_initialisation(layer, depth):
    mixer = ChannelMix(LayerContext(width=D, length=T, layer=layer, depth=depth), expand=3.5)
    expected = (torch.arange(D) / D) ** (1 - layer / depth)
    torch.testing.assert_close(mixer.time_mix_k.detach()[0, 0], expected)
    torch.testing.assert_close(mixer.time_mix_r.detach()[0, 0], expected)
    assert mixer.key.weight.shape == (42, D)
    torch.testing.assert_close(mixer.key.weight.T @ mixer.key.weight, torch.eye(D))  # RWKV-4: gain √(out/in)
    assert not mixer.value.weight.any()
    assert not mixer.receptance.weight.any()


def test_hints():
    hints = build()[0].param_overrides()
    assert set(hints) == {"time_decay", "time_faaaa", *(f"time_mix_{c}" for c in "kvrg")}
    assert all(hint.decay is False for hint in hints.values())
    assert [name for name, hint in hints.items() if hint.lr_scale != 1] == ["time_decay"]
    assert hints["time_decay"].lr_scale == 2
    assert set(ChannelMix(LayerContext(width=D, length=T), expand=3.5).param_overrides()) == {
        "time_mix_k",
        "time_mix_r",
    }


@pytest.mark.parametrize("options", [{"head_size": 5}, {"head_size": 1}, {"dim_att": 10}, {"dim_att": 0}])
def test_rejects_heads_that_cannot_be(options):
    with pytest.raises(ValueError, match=r"does not divide into heads|at least 2 channels"):
        TimeMix(LayerContext(width=D, length=T), **{"head_size": 4, **options})
