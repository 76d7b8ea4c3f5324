"""DeltaNet and Gated DeltaNet: strengths of writing, official widths, decays."""

import torch
import torch.nn.functional as F

from zoo.architectures.delta_net import DeltaNet
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.contract import LayerContext

from .mixers import drawn, vectors


def test_eigenvalues():
    """β stays below 1, or below 2 with `allow_neg_eigval`, and is that constant without `use_beta`."""
    context, x = LayerContext(width=12, length=19), vectors(2, 19, 12)
    for largest, options in ((1, {}), (2, {"allow_neg_eigval": True})):
        beta = drawn(DeltaNet(context, **options))._beta(50 * x)
        assert 0 <= beta.min() < 0.01
        assert 0.99 * largest < beta.max() <= largest
        assert bool((DeltaNet(context, use_beta=False, **options)._beta(x) == largest).all())


<<<<<<< HEAD
def test_decays_start_like_mamba2s():
=======
def test_state_is_float32_under_autocast():
    mixer, x = build()
    mixer, x = mixer.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.bfloat16))
    assert {name: value.dtype for name, value in state.items()} == {
        "q": torch.bfloat16,
        "k": torch.bfloat16,
        "v": torch.bfloat16,
        "S": torch.float32,
    }
    assert bool(y.isfinite().all())


def test_initial_values():
    mixer = DeltaNet(LayerContext(width=256, length=T, depth=8), use_gate=True, conv_bias=True)
    mixer.reset_parameters(layer=0, depth=8)
    for name in ("q_proj", "k_proj", "v_proj", "b_proj", "g_proj"):
        assert getattr(mixer, name).weight.std().item() == pytest.approx(1 / 16, rel=0.1)
    assert mixer.o_proj.weight.std().item() == pytest.approx(1 / 64, rel=0.1)
    assert 0.4 < mixer.q_conv1d.weight.abs().max() <= 0.5  # U(±1/√4)
    assert bool((mixer.o_norm.weight == 1).all())
    assert mixer.param_overrides() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "key width 12 does not divide into 5 heads"),
        ({"heads": 0}, "at least 1"),
        ({"expand_v": 0.25, "heads": 2}, "value width 3"),
        ({"conv_size": 0}, "conv_size"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        DeltaNet(LayerContext(width=D, length=T), **options)


def test_is_causal_only():
    with pytest.raises(Unsupported):
        DeltaNet(LayerContext(width=D, length=T, causal=False))


@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_short_convolution(kernel, activation):
    """Against the sum written out, in one piece and in pieces shorter than the kernel; masked rows."""
>>>>>>> w4
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
