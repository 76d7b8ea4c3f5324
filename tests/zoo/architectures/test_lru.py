"""LRU: the ring λ starts on, normalisation."""

import pytest
import torch

from zoo.architectures.lru import LRU
from zoo.contract import LayerContext


def test_initialisation():
    """λ uniform on the ring by area, γ = √(1 − |λ|²), B and C by Glorot."""
    torch.manual_seed(0)
    mixer = LRU(LayerContext(width=64, length=13), d_hidden=2000, r_min=0.5, r_max=0.9, max_phase=1.0)
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
        mixer = LRU(LayerContext(width=6, length=13), d_hidden=5)
        assert all(bool(p.isfinite().all()) for p in mixer.parameters())
        y, _ = mixer(torch.randn(3, 13, 6))
        y.sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in mixer.parameters())
