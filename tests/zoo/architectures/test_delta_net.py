"""DeltaNet: the layer step by step, recall, negative eigenvalues, initial values, errors; and the short convolution."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.delta_net import DeltaNet
from zoo.contract import LayerContext, Unsupported
from zoo.layers.short_convolution import ShortConvolution

B, T, D = 2, 19, 12
OPTIONS = [
    {},
    {"heads": 3, "expand_k": 0.5, "expand_v": 2.0, "use_gate": True, "conv_size": 3, "conv_bias": True},
    {"allow_neg_eigval": True, "qk_activation": "identity", "conv_size": 1},
    {"use_short_conv": False, "qk_activation": "elu", "qk_norm": "sum", "heads": 1},
    {"use_beta": False, "qk_activation": "relu", "heads": 2},
]


def build(**options):
    """A float64 mixer with every parameter random, and inputs."""
    torch.manual_seed(0)
    mixer = DeltaNet(LayerContext(width=D, length=T), **options).double()
    for p in mixer.parameters():
        p.data = torch.randn_like(p) * p[0].numel() ** -0.5 if p.dim() > 1 else 1 + 0.3 * torch.randn_like(p)
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


def test_eigenvalues():
    """β stays below 1, or below 2 with `allow_neg_eigval`, and is that constant without `use_beta`."""
    for largest, options in ((1, {}), (2, {"allow_neg_eigval": True})):
        mixer, x = build(**options)
        beta = mixer._beta(50 * x)
        assert 0 <= beta.min() < 0.01
        assert 0.99 * largest < beta.max() <= largest
        constant, _ = build(use_beta=False, **options)
        assert bool((constant._beta(x) == largest).all())


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
        ({"qk_activation": "gelu"}, "qk_activation"),
        ({"qk_norm": "l1"}, "qk_norm"),
        ({"conv_size": 0}, "kernel size"),
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
    torch.manual_seed(0)
    conv = ShortConvolution(D, kernel, bias=True, activation=activation).double()
    x = torch.randn(B, T, D, dtype=torch.float64)
    want = conv.bias.expand(B, T, D).clone()
    for lag in range(kernel):
        want[:, lag:] += conv.weight[:, 0, kernel - 1 - lag] * x[:, : T - lag]
    want = want if activation is None else F.silu(want)
    y, none = conv(x)
    assert none is None
    torch.testing.assert_close(y, want)
    state, pieces = conv.init_state(B, device="cpu", dtype=torch.float64), []
    for piece in x.split([1, 2, 1, T - 4], dim=1):
        y, state = conv(piece, state=state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), want)
    torch.testing.assert_close(state, x.transpose(1, 2)[..., T - kernel + 1 :])
    mask = torch.arange(T) < torch.tensor([2, 0])[:, None]
    _, last = conv(x.masked_fill(~mask[..., None], float("nan")), mask=mask, state=state)
    torch.testing.assert_close(last[0], torch.cat([state[0], x[0, :2].T], -1)[:, 2:])
    torch.testing.assert_close(last[1], state[1])
