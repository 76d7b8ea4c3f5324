"""RWKV-4's two mixers: causality, forms, padding, initialisation, hints."""

import math

import pytest
import torch

from zoo.contract import LayerContext, Unsupported
from zoo.mixers import rwkv4
from zoo.mixers.rwkv4 import ChannelMix, TimeMix
from zoo.ops.wkv4 import wkv_naive

B, T, D = 3, 21, 6
BOTH = pytest.mark.parametrize("kind", [TimeMix, ChannelMix])


def build(kind):
    """A float64 mixer, every parameter random, and inputs."""
    torch.manual_seed(0)
    mixer = kind(LayerContext(width=D, length=T)).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer, rows=B):
    return mixer.init_state(rows, device="cpu", dtype=torch.float64)


@BOTH
@pytest.mark.parametrize("t", [1, 10, T - 1])
def test_the_future_changes_nothing(kind, t):
    mixer, x = build(kind)
    other = torch.cat([x[:, :t], 100 * torch.randn_like(x[:, t:])], 1)
    torch.testing.assert_close(mixer(other)[0][:, :t], mixer(x)[0][:, :t], rtol=1e-10, atol=1e-10)


@BOTH
@pytest.mark.parametrize("cuts", [[1], [7], [T - 8], [1, 7, T - 8], range(1, T)], ids=str)
def test_pieces_continue_exactly(continues, kind, cuts):
    """Outputs and final state; a cut before every step is the recurrent form."""
    mixer, x = build(kind)
    continues(mixer, x, cuts)


def test_gradients_equal_those_of_the_naive_form(monkeypatch):
    mixer, x = build(TimeMix)
    fast = torch.autograd.grad(mixer(x)[0].square().sum(), list(mixer.parameters()))
    monkeypatch.setattr(rwkv4, "wkv", wkv_naive)
    slow = torch.autograd.grad(mixer(x)[0].square().sum(), list(mixer.parameters()))
    torch.testing.assert_close(fast, slow)


@BOTH
def test_padding_leaves_no_trace(kind):
    """Junk changes no valid output and no state; each row ends as it would alone, empty rows as they began."""
    mixer, x = build(kind)
    lengths = [T, 5, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    _, before = mixer(torch.randn_like(x), state=start(mixer))
    y, state = mixer(x, mask=mask, state=before)
    y2, state2 = mixer(torch.where(mask[..., None], x, 1e3), mask=mask, state=before)
    torch.testing.assert_close(y2[mask], y[mask], rtol=0, atol=0)
    torch.testing.assert_close(state2, state, rtol=0, atol=0)
    for row, n in enumerate(lengths):
        alone = {name: value[row : row + 1] for name, value in before.items()}
        if n:
            y_row, alone = mixer(x[row : row + 1, :n], state=alone)
            torch.testing.assert_close(y_row, y[row : row + 1, :n])
        torch.testing.assert_close({name: value[row : row + 1] for name, value in state.items()}, alone)


@BOTH
def test_one_step(kind):
    mixer, x = build(kind)
    torch.testing.assert_close(mixer(x[:, :1])[0], mixer(x)[0][:, :1])


@BOTH
def test_decay_and_state_stay_float32_under_autocast(kind):
    mixer, x = build(kind)
    mixer, x = mixer.float(), x.float()
    state = mixer.init_state(B, device="cpu", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = mixer(x, state=state)
    assert all(value.dtype is torch.float32 for value in state.values())
    torch.testing.assert_close(y.float(), mixer(x)[0], rtol=0.1, atol=0.1 * mixer(x)[0].abs().max().item())


def test_is_causal_only():
    with pytest.raises(Unsupported):
        TimeMix(LayerContext(width=D, length=T, causal=False))


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
    mixer = ChannelMix(LayerContext(width=D, length=T, layer=layer, depth=depth))
    expected = (torch.arange(D) / D) ** (1 - layer / depth)
    torch.testing.assert_close(mixer.time_mix_k.detach(), expected)
    torch.testing.assert_close(mixer.time_mix_r.detach(), expected)
    assert not mixer.value.weight.any()
    assert not mixer.receptance.weight.any()
    torch.testing.assert_close(mixer.key.weight.T @ mixer.key.weight, 4 * torch.eye(D))  # gain √(out/in) = 2


def test_hints():
    mixer, _ = build(TimeMix)
    hints = mixer.param_overrides()
    assert set(hints) == {name for name, _ in mixer.named_parameters() if name.startswith("time_")}
    assert all(hint.decay is False for hint in hints.values())
    scales = {name: hint.lr_scale for name, hint in hints.items() if hint.lr_scale != 1}
    assert scales == {"time_decay": 2.0, "time_first": 3.0}
    assert set(build(ChannelMix)[0].param_overrides()) == {"time_mix_k", "time_mix_r"}


@BOTH
def test_works_without_data(kind):
    with torch.device("meta"):
        mixer, x = kind(LayerContext(width=D, length=T)), torch.randn(B, T, D)
    y, state = mixer(x, state=mixer.init_state(B, device="meta", dtype=torch.float32))
    y.sum().backward()
    assert y.shape == x.shape
    assert state["x"].shape == (B, D)
