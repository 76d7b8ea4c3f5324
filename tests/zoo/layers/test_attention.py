"""Attention against torch's own, with gradients; the fused form against the equation; initial weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.contract import LayerContext
from zoo.layers.attention import Attention
from zoo.ops.attention import attend, attend_naive

B, T, D, H = 3, 9, 12, 3
LENGTHS = torch.tensor([9, 4, 0])
MASK = torch.arange(T) < LENGTHS[:, None]


def build(*, causal=True, **options):
    torch.manual_seed(0)
    mixer = Attention(LayerContext(width=D, length=T, causal=causal), heads=H, **options).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return mixer


def inputs(steps=T, seed=1):
    return torch.randn(B, steps, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_torch_multihead_attention_with_gradients(causal, bias, padded):
    ours, theirs = build(causal=causal, bias=bias), nn.MultiheadAttention(D, H, bias=bias, batch_first=True).double()
    pairs = [(ours.qkv.weight, theirs.in_proj_weight), (ours.out.weight, theirs.out_proj.weight)]
    if bias:
        pairs += [(ours.qkv.bias, theirs.in_proj_bias), (ours.out.bias, theirs.out_proj.bias)]
    with torch.no_grad():
        for own, other in pairs:
            other.copy_(own)
    x, x2 = inputs().requires_grad_(), inputs().requires_grad_()
    rows = slice(0, 2)  # torch gives NaN for a row of padding only
    mask = MASK[rows] if padded else None
    future = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    y = ours(x[rows], mask=mask)[0]
    y2 = theirs(x2[rows], x2[rows], x2[rows], key_padding_mask=None if mask is None else ~mask, attn_mask=future)[0]
    valid = torch.ones(2, T, dtype=torch.bool) if mask is None else mask
    close(y[valid], y2[valid])
    weight = inputs(seed=2)[rows][valid]
    grads = torch.autograd.grad((y[valid] * weight).sum(), [x, *(own for own, _ in pairs)])
    grads2 = torch.autograd.grad((y2[valid] * weight).sum(), [x2, *(other for _, other in pairs)])
    for own, other in zip(grads, grads2, strict=True):
        close(own, other)


@pytest.mark.parametrize("S", [T, T + 4], ids=["square", "after a cache"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_fused_equals_the_equation_with_gradients(S, causal, masked):
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, H, n, 5, dtype=torch.float64, requires_grad=True) for n in (T, S, S))
    visible = torch.rand(B, 1, T, S) < 0.6 if masked else None
    if visible is not None:
        visible |= torch.eye(T, S, dtype=torch.bool)
    found, wanted = (
        attend(q, k, v, visible=visible, causal=causal),
        attend_naive(q, k, v, visible=visible, causal=causal),
    )
    close(found, wanted)
    weight = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), (q, k, v)),
        torch.autograd.grad((wanted * weight).sum(), (q, k, v)),
        strict=True,
    ):
        close(a, b)


def test_the_equation_equals_torch_and_a_loop():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 4, 5, dtype=torch.float64) for _ in range(3))
    found = attend_naive(q, k, v, causal=True)
    close(found, F.scaled_dot_product_attention(q, k, v, is_causal=True))
    for t in range(4):
        p = [float(torch.exp(q[0, 0, t] @ k[0, 0, s] / 5**0.5)) for s in range(t + 1)]
        close(found[0, 0, t], sum(p[s] * v[0, 0, s] for s in range(t + 1)) / sum(p))


def test_bfloat16_on_the_cpu_stays_close():
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, H, T, 8) for _ in range(3))
    half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal=True)
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), attend_naive(q, k, v, causal=True), rtol=0.05, atol=0.05)


def test_without_positions_both_ways_is_equivariant_to_order():
    mixer, x = build(causal=False), inputs()
    order = torch.randperm(T, generator=torch.Generator().manual_seed(3))
    close(mixer(x[:, order])[0], mixer(x)[0][:, order])
    causal = build(causal=True)
    assert (causal(x[:, order])[0] - causal(x)[0][:, order]).abs().max() > 1e-2


def test_weights_start_by_fan_in_and_the_residual_projection_by_depth():
    torch.manual_seed(0)
    mixer = Attention(LayerContext(width=128, length=T))
    mixer.reset_parameters(layer=0, depth=8)
    assert mixer.qkv.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert mixer.out.weight.std().item() == pytest.approx(128**-0.5 / 4, rel=0.05)
    assert mixer.qkv.bias.abs().max() == mixer.out.bias.abs().max() == 0
