"""Sinkhorn attention: balancing, sorting, noise, padding."""

import pytest
import torch

from zoo.architectures.sinkhorn import Sinkhorn, balance
from zoo.contract import LayerContext, Unsupported
from zoo.layers.attention import Attention

B, T, D, H = 3, 22, 8, 2
NETS = pytest.mark.parametrize("sort_net", ["simple", "attention"])


def build(length=T, **options):
    """A float64 mixer with random parameters, for evaluation, and inputs."""
    torch.manual_seed(0)
    mixer = Sinkhorn(
        LayerContext(width=D, length=length, causal=False), **{"heads": H, "block_size": 4, **options}
    ).double()
    for parameter in mixer.parameters():
        parameter.data.normal_()
    return mixer.eval(), torch.randn(B, T, D, dtype=torch.float64)


def test_balancing_makes_doubly_stochastic():
    P = balance(torch.randn(B, H, 5, 5, dtype=torch.float64), 50)
    torch.testing.assert_close(P.sum(2), torch.ones(B, H, 5, dtype=torch.float64))
    torch.testing.assert_close(P.sum(3), torch.ones(B, H, 5, dtype=torch.float64))


def test_balancing_leaves_dead_blocks_out():
    """The others balance as they would alone; a dead one maps to itself, and gradients are finite."""
    log_R = torch.randn(1, H, 5, 5, dtype=torch.float64, requires_grad=True)
    P = balance(log_R, 3, torch.tensor([[True, True, True, False, False]]))
    torch.testing.assert_close(P[..., :3, :3], balance(log_R[..., :3, :3], 3))
    assert torch.equal(P[..., 3:, 3:], torch.eye(2, dtype=torch.float64).expand(1, H, 2, 2))
    assert not P[..., :3, 3:].any()
    assert torch.autograd.grad(P.square().sum(), log_R)[0].isfinite().all()


@NETS
def test_a_clear_score_permutes_the_blocks(sort_net):
    """Where P is a permutation, block i attends to itself and to block π(i), as two keys lists joined."""
    mixer, x = build(sort_net=sort_net, length=24)
    x = torch.cat([x, x[:, :2]], 1)
    order = torch.tensor([2, 0, 1, 4, 5, 3])
    mixer.sort = lambda x, alive: torch.eye(6, dtype=x.dtype)[order].expand(B, H, 6, 6)
    q, (k, v) = mixer.to_q(x), mixer.to_kv(x).chunk(2, -1)
    q, k, v = (y.view(B, 6, 4, H, D // H).permute(0, 3, 1, 2, 4) for y in (q, k, v))
    k, v = (torch.cat([y, y[:, :, order]], 3) for y in (k, v))
    y = (q @ k.transpose(-1, -2) / (D // H) ** 0.5).softmax(-1) @ v
    torch.testing.assert_close(mixer(x)[0], mixer.to_out(y.permute(0, 2, 3, 1, 4).reshape(B, 24, D)))


@NETS
def test_one_block_is_full_attention(sort_net):
    mixer, x = build(block_size=T + 3, sort_net=sort_net)
    full = Attention(LayerContext(width=D, length=T, causal=False), heads=H).double()
    qkv = torch.cat([mixer.to_q.weight, mixer.to_kv.weight])
    out = {"out.weight": mixer.to_out.weight, "out.bias": mixer.to_out.bias}
    full.load_state_dict({"qkv.weight": qkv, "qkv.bias": torch.zeros(3 * D), **out})
    torch.testing.assert_close(mixer(x)[0], full(x)[0])


@NETS
def test_padding_leaves_no_trace(sort_net):
    """Not even NaN; each row gives what it gives alone."""
    mixer, x = build(sort_net=sort_net)
    lengths = [T, 9, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask)[0]
    assert y.isfinite().all()
    for row, n in enumerate(lengths[:2]):
        torch.testing.assert_close(mixer(x[row : row + 1, :n])[0], y[row : row + 1, :n])


def test_noise_in_training_only():
    mixer, x = build()
    assert torch.equal(mixer(x)[0], mixer(x)[0])
    mixer.train()
    assert not torch.allclose(mixer(x)[0], mixer(x)[0])


def test_sorting_stays_float32_under_autocast():
    mixer, x = build()
    mixer, x, alive = mixer.float(), x[:, :20].float(), torch.ones(B, 5, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        P = mixer.sort(x, alive)
    torch.testing.assert_close(P, mixer.sort(x, alive), rtol=0, atol=0)


def test_initialisation_and_hints():
    mixer = Sinkhorn(LayerContext(width=256, length=64, causal=False))
    mixer.reset_parameters(layer=1, depth=4)
    for linear, scale in ((mixer.to_q, 1), (mixer.to_kv, 1), (mixer.to_out, 8**-0.5)):
        assert linear.weight.std().item() == pytest.approx(scale / 16, rel=0.02)
    assert mixer.linear.shape == (1, 4, 128, 4)
    assert mixer.linear.std().item() == pytest.approx(1, rel=0.1)
    assert mixer.param_overrides()["linear"].decay is True
    assert Sinkhorn(LayerContext(width=8, length=64, causal=False), sort_net="attention").param_overrides() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "does not divide"),
        ({"block_size": 0}, "positive"),
        ({"temperature": 0.0}, "positive"),
        ({"sort_net": "bubble"}, "'bubble' is not one of simple, attention"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_refuses_causal_long_and_state():
    with pytest.raises(Unsupported):
        Sinkhorn(LayerContext(width=D, length=T))
    mixer, x = build(length=T - 1)
    with pytest.raises(ValueError, match="21 at most"):
        mixer(x)
    with pytest.raises(Unsupported):
        mixer(x, state={})


def test_works_without_data():
    with torch.device("meta"):
        mixer, x = Sinkhorn(LayerContext(width=D, length=T, causal=False), block_size=4), torch.randn(B, T, D)
        mask = torch.ones(B, T, dtype=torch.bool)
    mixer(x, mask=mask)[0].sum().backward()
