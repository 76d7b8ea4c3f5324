"""Sliding-window attention: windows, caches, positions, initialisation."""

import pytest
import torch

from zoo.contract import LayerContext, Part, Unsupported
from zoo.layers.attention import Attention
from zoo.layers.local_attention import LocalAttention

B, T, D = 3, 75, 8


def build(*, causal=True, positions=None, length=T, **options):
    """A float64 mixer with random parameters, and inputs."""
    torch.manual_seed(0)
    context = LayerContext(width=D, length=length, causal=causal, positions=positions)
    mixer = LocalAttention(context, **{"heads": 2, **options}).double()
    for parameter in mixer.parameters():
        parameter.data.normal_()
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer, batch=B):
    return mixer.init_state(batch, device="cpu", dtype=torch.float64)


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("kind", [None, "rope", "alibi", "t5"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_window_over_everything_is_full_attention(causal, kind, kv_heads):
    positions = None if kind is None else Part(kind)
    window = T if causal else 2 * T - 1
    mixer, x = build(causal=causal, positions=positions, window=window, length=2 * T, kv_heads=kv_heads)
    full = Attention(
        LayerContext(width=D, length=T, causal=causal, positions=positions), heads=2, kv_heads=kv_heads
    ).double()
    joined = {
        f"qkv.{part}": torch.cat([getattr(getattr(mixer, f"{n}_proj"), part) for n in "qkv"])
        for part in ("weight", "bias")
    }
    own = {key.replace("out_proj", "out"): value for key, value in mixer.state_dict().items() if key[0] in "op"}
    full.load_state_dict(joined | own)
    torch.testing.assert_close(mixer(x)[0], full(x)[0])


@pytest.mark.parametrize("window", [1, 2, 5])
def test_who_sees_whom(window):
    """By gradients: causal, the window − 1 steps before; both ways, window // 2 on each side."""
    ahead = torch.arange(T) - torch.arange(T)[:, None]
    for causal, seen in ((True, (ahead <= 0) & (ahead > -window)), (False, ahead.abs() <= window // 2)):
        mixer, x = build(causal=causal, window=window)
        x.requires_grad_()
        y = mixer(x)[0][0].sum(-1)
        reached = torch.stack([torch.autograd.grad(out, x, retain_graph=True)[0][0].abs().sum(-1) > 0 for out in y])
        assert torch.equal(reached, seen)


@pytest.mark.parametrize("positions", [None, Part("rope", fraction=0.5), Part("t5"), Part("xpos")], ids=str)
@pytest.mark.parametrize("sizes", [[75], [1, 7, 67], [40, 1, 34], [1] * 75], ids=str)
def test_pieces_continue_exactly(sizes, positions):
    """In blocks, below a block and step by step; the state never grows."""
    mixer, x = build(window=6, kv_heads=1, positions=positions)
    whole, final = mixer(x, state=start(mixer))
    torch.testing.assert_close(mixer(x)[0], whole)
    state, pieces = start(mixer), []
    for piece in x.split(sizes, dim=1):
        y, state = mixer(piece, state=state)
        pieces.append(y)
        assert state["k"].shape == (B, 1, 5, 4)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(state, final)


def test_initialisation():
    context = LayerContext(width=256, length=T)
    for gain, values, out in ((None, 1.0, 8**-0.5), (0.3, 0.3, 0.3)):
        mixer = LocalAttention(LayerContext(width=256, length=T, gain=gain), kv_heads=2)
        mixer.reset_parameters(layer=1, depth=4)
        for linear, scale in ((mixer.q_proj, 1), (mixer.k_proj, 1), (mixer.v_proj, values), (mixer.out_proj, out)):
            assert linear.weight.std().item() == pytest.approx(scale / 16, rel=0.02)
            assert not linear.bias.any()
    bare = LocalAttention(context, bias=False, out_bias=False, head_width=16, kv_heads=1)
    assert {name: tuple(p.shape) for name, p in bare.named_parameters()} == {
        "q_proj.weight": (64, 256),
        "k_proj.weight": (16, 256),
        "v_proj.weight": (16, 256),
        "out_proj.weight": (256, 64),
    }


def test_default_window_fits():
    assert LocalAttention(LayerContext(width=D, length=5)).window == 5
    assert LocalAttention(LayerContext(width=D, length=500)).window == 64


def test_both_ways_cannot_continue():
    mixer, x = build(causal=False)
    with pytest.raises(Unsupported, match="state"):
        mixer(x, state=start(mixer))
