"""S4D: the spectra it starts with."""

import math

import pytest
import torch

from zoo.architectures.s4d import S4D
from zoo.contract import LayerContext


@pytest.mark.parametrize("init", ["lin", "inv", "legs", "real"])
def test_initialisation(init):
    mixer = S4D(LayerContext(width=256, length=21), d_state=16, init=init)
    mixer.reset_parameters(layer=0, depth=1)
    n = torch.arange(8)
    re = {"real": -(n + 1.0)}.get(init, torch.full((8,), -0.5))
    torch.testing.assert_close(-mixer.log_A_real.exp().detach(), re.expand(256, 8))
    if init != "legs":
        im = {"lin": math.pi * n, "inv": 16 / math.pi * (16 / (2 * n + 1) - 1), "real": 0.0 * n}[init]
        torch.testing.assert_close(mixer.A_imag.detach(), im.expand(256, 8))
    dt = mixer.log_dt.exp()
    assert 1e-3 <= dt.min() < 2e-3
    assert 5e-2 < dt.max() <= 1e-1
    assert mixer.C.var().item() == pytest.approx(0.5, rel=0.1)
<<<<<<< HEAD
=======
    assert mixer.D.std().item() == pytest.approx(1.0, rel=0.2)


def test_hints_cover_the_system_and_leave_the_linear_layer_alone():
    mixer, _ = build()
    hints = mixer.param_overrides()
    assert {name for name, hint in hints.items() if hint.lr_max == 1e-3} == {"log_dt", "log_A_real", "A_imag", "B"}
    assert all(hint.decay is False for hint in hints.values())
    assert {name for name, _ in mixer.named_parameters()} - set(hints) == {"output.weight", "output.bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "even"),
        ({"dt_min": 1}, "dt"),
        ({"n_ssm": 3 * D}, "divide"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        S4D(LayerContext(width=D, length=T), **options)


def test_is_causal_only():
    with pytest.raises(Unsupported):
        S4D(LayerContext(width=D, length=T, causal=False))


def test_works_without_data():
    with torch.device("meta"):
        mixer, x = S4D(LayerContext(width=D, length=T)), torch.randn(B, T, D)
    for state in (None, mixer.init_state(B, device="meta", dtype=torch.float32)):
        y, after = mixer(x, state=state)
        y.sum().backward()
        assert y.shape == x.shape
    assert after["x"].shape == (B, D, 32, 2)
>>>>>>> w4
