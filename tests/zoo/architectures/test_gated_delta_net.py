"""Gated DeltaNet: pieces, padding, decays, grouped value heads, initial values, hints, errors."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.delta_net import DeltaNet
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.contract import LayerContext, ParamOverride, Unsupported

B, T, D = 2, 19, 16
OPTIONS = [
    {},
    {"heads": 2, "value_heads": 6, "head_dim": 5, "expand_v": 1.2, "conv_size": 3, "conv_bias": True},
    {"use_gate": False, "use_short_conv": False, "allow_neg_eigval": True},
]


def build(**options):
    """A float64 mixer with every parameter random, and inputs."""
    torch.manual_seed(0)
    mixer = GatedDeltaNet(LayerContext(width=D, length=T), **options).double()
    for p in mixer.parameters():
        p.data = torch.randn_like(p) * p[0].numel() ** -0.5 if p.dim() > 1 else 0.5 * torch.randn_like(p)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cuts", [[1], [7, 9], range(1, T)], ids=str)
def test_pieces_continue_exactly(continues, options, cuts):
    mixer, x = build(**options)
    continues(mixer, x, cuts)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_padding_leaves_no_trace(leaves_no_trace, options):
    """NaN in padding changes nothing; each row ends as it would alone, an empty row as it began."""
    mixer, x = build(**options)
    leaves_no_trace(mixer, x)


def test_without_decay_it_is_delta_net():
    """A = 0 up to rounding: equal to DeltaNet with the same weights."""
    mixer, x = build(use_gate=False)
    plain = DeltaNet(LayerContext(width=D, length=T), expand_v=2.0).double()
    with torch.no_grad():
        mixer.A_log.fill_(-1000)
    names = plain.state_dict().keys()
    plain.load_state_dict({name: value for name, value in mixer.state_dict().items() if name in names})
    torch.testing.assert_close(mixer(x)[0], plain(x)[0])


def test_decays_are_mamba2s_and_keep_float32_under_autocast():
    mixer, x = build()
    a = mixer.a_proj(x)
    torch.testing.assert_close(mixer.log_decay(a), -mixer.A_log.exp() * F.softplus(a + mixer.dt_bias))
    mixer = mixer.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mixer.log_decay(a.bfloat16()).dtype == torch.float32
        _, state = mixer(x.float(), state=mixer.init_state(B, device="cpu", dtype=torch.bfloat16))
    assert state["S"].dtype == torch.float32


def test_initial_values_and_hints():
    mixer = GatedDeltaNet(LayerContext(width=512, length=T), heads=2, value_heads=256, head_dim=8)
    mixer.reset_parameters(layer=0, depth=8)
    A, dt = mixer.A_log.exp(), F.softplus(mixer.dt_bias)
    assert 0 < A.min() < 1
    assert 15 < A.max() <= 16
    assert A.mean().item() == pytest.approx(8, rel=0.15)
    assert 0.999e-3 <= dt.min() < 2e-3
    assert 0.08 < dt.max() <= 0.1001
    assert dt.log().mean().item() == pytest.approx(-2 * 2.302585, rel=0.05)
    assert mixer.param_overrides() == {"A_log": ParamOverride(decay=False), "dt_bias": ParamOverride(decay=False)}


def test_about_six_width_squared_parameters():
    """The official allocation, with and without a gate."""
    for gate in (True, False):
        mixer = GatedDeltaNet(LayerContext(width=64, length=T), use_gate=gate)
        count = sum(p.numel() for name, p in mixer.named_parameters() if name.split("_")[0] in "qkvgo" and p.dim() == 2)
        assert count == 6 * 64**2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 4, "value_heads": 6}, "not a multiple"),
        ({"heads": 0}, "not a multiple"),
        ({"head_dim": 5, "expand_v": 1.5}, "whole number"),
        ({"heads": 64}, "too small"),
        ({"head_dim": 0}, "too small"),
        ({"output_gate_activation": "gelu"}, "output_gate_activation"),
        ({"conv_size": 0}, "kernel size"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        GatedDeltaNet(LayerContext(width=D, length=T), **options)


def test_is_causal_only():
    with pytest.raises(Unsupported):
        GatedDeltaNet(LayerContext(width=D, length=T, causal=False))
