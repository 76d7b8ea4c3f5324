"""Longformer: who sees whom, global tokens, caches, initialisation."""

import pytest
import torch

from zoo.architectures.longformer import Longformer
from zoo.contract import LayerContext, Unsupported
from zoo.layers.attention import Attention

B, T, D = 3, 75, 8


def build(*, causal=False, **options):
    """A float64 mixer with random parameters, and inputs."""
    torch.manual_seed(0)
    mixer = Longformer(LayerContext(width=D, length=T, causal=causal), **{"heads": 2, **options}).double()
    for parameter in mixer.parameters():
        parameter.data.normal_()
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


@pytest.mark.parametrize(("causal", "G"), [(False, 0), (False, 1), (False, 3), (True, 3)])
def test_who_sees_whom(causal, G):
    """By gradients: half the window on each side, global tokens in rows and columns; causal, one side and no such."""
    mixer, x = build(causal=causal, window=4, global_tokens=G)
    x.requires_grad_()
    y = mixer(x)[0][0].sum(-1)
    reached = torch.stack([torch.autograd.grad(out, x, retain_graph=True)[0][0].abs().sum(-1) > 0 for out in y])
    t, s = torch.arange(T)[:, None], torch.arange(T)
    seen = (s <= t) & (s >= t - 2) if causal else ((s - t).abs() <= 2) | (t < G) | (s < G)
    assert torch.equal(reached, seen)


@pytest.mark.parametrize(("causal", "G"), [(False, 0), (False, 2), (False, T + 5), (True, 0)])
def test_a_window_over_everything_is_full_attention(causal, G):
    """With the global projections equal to the local ones, as they start."""
    mixer, x = build(causal=causal, window=2 * T, global_tokens=G)
    for name in ("query", "key", "value") if mixer.global_tokens else ():
        getattr(mixer, f"{name}_global").load_state_dict(getattr(mixer, name).state_dict())
    full = Attention(LayerContext(width=D, length=T, causal=causal), heads=2).double()
    parts = [mixer.query, mixer.key, mixer.value]
    qkv = {f"qkv.{part}": torch.cat([getattr(p, part) for p in parts]) for part in ("weight", "bias")}
    full.load_state_dict(qkv | {"out.weight": mixer.out.weight, "out.bias": mixer.out.bias})
    torch.testing.assert_close(mixer(x)[0], full(x)[0])


@pytest.mark.parametrize("sizes", [[1, 7, 67], [40, 1, 34], [1] * 75], ids=str)
def test_pieces_continue_exactly(sizes):
    mixer, x = build(causal=True, window=6)
    state, pieces = mixer.init_state(B, device="cpu", dtype=torch.float64), []
    whole, final = mixer(x, state=state)
    torch.testing.assert_close(mixer(x)[0], whole)
    for piece in x.split(sizes, dim=1):
        y, state = mixer(piece, state=state)
        pieces.append(y)
        assert state["k"].shape == (B, 2, 3, 4)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize("G", [0, 1, 4])
def test_padding_leaves_no_trace(G):
    """Not even NaN; each row gives what it gives alone, also where it ends within the global tokens."""
    mixer, x = build(window=6, global_tokens=G)
    lengths = [T, 3, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask)[0]
    assert y.isfinite().all()
    for row, n in enumerate(lengths[:2]):
        torch.testing.assert_close(mixer(x[row : row + 1, :n])[0], y[row : row + 1, :n])


def test_initialisation():
    mixer = Longformer(LayerContext(width=256, length=T, causal=False))
    mixer.reset_parameters(layer=1, depth=4)
    for name, scale in (("query", 1), ("key", 1), ("value", 1), ("out", 8**-0.5)):
        linear = getattr(mixer, name)
        assert linear.weight.std().item() == pytest.approx(scale / 16, rel=0.02)
        assert not linear.bias.any()
        if name != "out":
            assert torch.equal(getattr(mixer, f"{name}_global").weight, linear.weight)


def test_causal_has_no_global_projections():
    mixer, _ = build(causal=True, global_tokens=2)
    assert not any("global" in name for name, _ in mixer.named_parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3}, "even"),
        ({"window": 0}, "even"),
        ({"heads": 3}, "does not divide"),
        ({"global_tokens": -1}, "-1"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Longformer(LayerContext(width=D, length=T, causal=False), **options)


def test_both_ways_cannot_continue():
    mixer, x = build()
    with pytest.raises(Unsupported, match="state"):
        mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float64))


@pytest.mark.parametrize("causal", [True, False])
def test_works_without_data(causal):
    with torch.device("meta"):
        mixer, x = Longformer(LayerContext(width=D, length=T, causal=causal), window=6), torch.randn(B, T, D)
        mask = torch.ones(B, T, dtype=torch.bool)
    mixer(x, mask=mask)[0].sum().backward()
