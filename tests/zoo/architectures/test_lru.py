"""LRU: the ring λ starts on, normalisation, the naive scan, hints."""

import math

import pytest
import torch

from zoo.architectures.lru import LRU
from zoo.contract import LayerContext
from zoo.layers import diagonal
from zoo.ops import diagonal_scan

B, T, D = 3, 13, 6


def build(**options):
    """A float64 mixer, every parameter random around its initial value, and inputs."""
    torch.manual_seed(0)
    mixer = LRU(LayerContext(width=D, length=T), d_hidden=5, **options).double()
    for parameter in mixer.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def test_outputs_state_and_gradients_equal_the_naive_scan(monkeypatch):
    mixer, x = build()
    mask = torch.arange(T) < torch.tensor([T, 6, 0])[:, None]
    before = {"x": torch.randn(B, 5, 2, dtype=torch.float64).requires_grad_()}

    def everything():
        y, after = mixer(x, mask=mask, state=before)
        total = y[mask].square().sum() + after["x"].square().sum()
        return y, after, torch.autograd.grad(total, [*mixer.parameters(), before["x"]])

    fast = everything()
    torch.testing.assert_close(fast[1]["x"][2], before["x"][2])
    monkeypatch.setattr(diagonal, "scan", diagonal_scan.scan_naive)
    torch.testing.assert_close(fast, everything())


def test_initialisation():
    """λ uniform on the ring by area, γ = √(1 − |λ|²), B and C by Glorot."""
    torch.manual_seed(0)
    mixer = LRU(LayerContext(width=64, length=T), d_hidden=2000, r_min=0.5, r_max=0.9, max_phase=1.0)
    radius, phase = torch.exp(-mixer.nu_log.exp()), mixer.theta_log.exp()
    assert 0.5 <= radius.min() < 0.51
    assert 0.89 < radius.max() <= 0.9
    assert radius.square().mean().item() == pytest.approx((0.25 + 0.81) / 2, abs=0.01)
    assert phase.max() <= 1
    assert phase.mean().item() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(mixer.gamma_log.exp(), (1 - radius.square()).sqrt())
    assert mixer.B_re.std().item() == pytest.approx(128**-0.5, rel=0.02)
    assert mixer.C_im.std().item() == pytest.approx(2000**-0.5, rel=0.02)
    assert mixer.out1.weight.std().item() == pytest.approx(1 / 8, rel=0.05)


def test_the_whole_disc_stays_finite(monkeypatch):
    """At the ends of the ring, 0 and 1, the logarithms would not be."""
    for u in (0.0, 1.0):
        monkeypatch.setattr(torch, "rand_like", lambda x, u=u: torch.full_like(x, u))
        mixer = LRU(LayerContext(width=D, length=T), d_hidden=5)
        assert all(bool(p.isfinite().all()) for p in mixer.parameters())
        y, _ = mixer(torch.randn(B, T, D))
        y.sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in mixer.parameters())


def test_hints():
    mixer, _ = build()
    hints = mixer.param_overrides()
    assert {n for n, h in hints.items() if h.lr_scale == 0.5} == {"nu_log", "theta_log", "gamma_log", "B_re", "B_im"}
    assert {n for n, h in hints.items() if h.decay} == {"C_re", "C_im"}
    assert hints["D"].decay is False


def test_gelu_is_an_option():
    mixer, x = build()
    exact, _ = build(gelu="erf")
    exact.load_state_dict(mixer.state_dict())
    difference = (mixer(x)[0] - exact(x)[0]).abs().max().item()
    assert 1e-7 < difference < 1e-2


def test_state_stays_float32_under_autocast():
    mixer, x = build()
    mixer, x = mixer.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.bfloat16))
    _, exact = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float32))
    torch.testing.assert_close(state, exact, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_hidden": 0}, "d_hidden"),
        ({"r_min": 0.9, "r_max": 0.5}, "r_min < r_max"),
        ({"r_max": 1.1}, "r_max"),
        ({"max_phase": -math.pi}, "max_phase"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        LRU(LayerContext(width=D, length=T), **options)
