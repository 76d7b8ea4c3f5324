"""DeltaNet and Gated DeltaNet: strengths of writing, official widths, decays."""

import torch
import torch.nn.functional as F

from zoo.architectures.delta_net import DeltaNet
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.contract import LayerContext

from .mixers import drawn, vectors


def test_eigenvalues():
    """β stays below 1, or below 2 with `allow_neg_eigval`."""
    context, x = LayerContext(width=12, length=19), vectors(2, 19, 12)
    for largest, options in ((1, {}), (2, {"allow_neg_eigval": True})):
        beta = drawn(DeltaNet(context, **options)).beta(50 * x)
        assert 0 <= beta.min() < 0.01
        assert 0.99 * largest < beta.max() <= largest
        assert DeltaNet(context, use_beta=False, **options).largest_beta == largest


def test_decays_start_like_mamba2s():
    torch.manual_seed(0)
    mixer = GatedDeltaNet(LayerContext(width=512, length=19), heads=2, value_heads=256, head_dim=8)
    mixer.reset_parameters(layer=0, depth=8)
    A, dt = mixer.A_log.exp(), F.softplus(mixer.dt_bias)
    assert 0 < A.min() < 1
    assert 15 < A.max() <= 16
    assert abs(A.mean() / 8 - 1) < 0.15
    assert 0.999e-3 <= dt.min() < 2e-3
    assert 0.08 < dt.max() <= 0.1001
    assert abs(dt.log().mean() / -4.605 - 1) < 0.05


def test_about_six_width_squared_parameters():
    """The official allocation, with and without a gate."""
    for gate in (True, False):
        mixer = GatedDeltaNet(LayerContext(width=64, length=19), use_gate=gate)
        count = sum(p.numel() for name, p in mixer.named_parameters() if name.split("_")[0] in "qkvgo" and p.dim() == 2)
        assert count == 6 * 64**2
