"""Performer: softmax attention in the limit of many features, orthogonal Gaussian features, redrawing."""

import math

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.performer import Performer, orthogonal_features
from zoo.contract import LayerContext

from .mixers import drawn, vectors

T, D = 19, 12


def build(*, causal=True, heads=3, width=D, std=0.4, **options):
    return drawn(Performer(LayerContext(width=width, length=64, causal=causal), heads=heads, **options), std)


@pytest.mark.parametrize("causal", [True, False])
def test_approaches_softmax_attention_as_features_grow(causal):
    x = vectors(2, T, D)

    def error(m):
        total = 0.0
        for seed in range(4):
            mixer = build(causal=causal, std=0.1, features=m, eps=1e-12)
            mixer.redraw(torch.Generator().manual_seed(seed))
            q, k, v = mixer.qkv(x).view(2, T, 3, 3, -1).permute(2, 0, 3, 1, 4)
            exact = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            exact = mixer.out(exact.transpose(1, 2).flatten(2))
            total += ((mixer(x)[0] - exact).norm() / exact.norm()).item()
        return total / 4

    errors = [error(m) for m in (4, 64, 1024, 4096)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 6 * errors[3]
    assert errors[3] < 0.008


def test_a_key_along_a_long_row_of_w_cannot_overflow():
    mixer = build(heads=1, width=256, features=8).float()
    w = mixer.W[0]
    with torch.no_grad():
        mixer.W[0] *= 16 / w.norm()  # |w|²/2 = 128 > 88, where e^x leaves float32
    phi = mixer.key_features((w * 256**0.25).view(1, 1, 1, -1))
    assert phi.isfinite().all()
    assert phi.max() > 1e27


@pytest.mark.parametrize(("m", "d"), [(3, 8), (8, 8), (21, 8)])
def test_features_are_orthogonal_in_blocks_with_independent_norms(m, d):
    W = orthogonal_features(m, d, generator=torch.Generator().manual_seed(0))
    assert W.shape == (m, d)
    norms = W.norm(dim=-1)
    assert norms.unique().numel() == m
    for block in (W / norms[:, None]).split(d):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block), dtype=W.dtype), rtol=0, atol=1e-12)


def test_features_are_gaussian_row_by_row():
    generator = torch.Generator().manual_seed(0)
    W = torch.stack([orthogonal_features(3, 3, generator=generator) for _ in range(4000)])
    assert W.mean(0).abs().max() < 0.06
    for row in W.unbind(1):
        torch.testing.assert_close(torch.cov(row.T), torch.eye(3, dtype=W.dtype), rtol=0, atol=0.1)


def test_redraws_only_when_asked_and_saves_its_features():
    mixer, x = build(), vectors(2, T, D)
    W = mixer.W.clone()
    mixer.train()(x)
    assert torch.equal(mixer.W, W)
    other = build()
    other.redraw(torch.Generator().manual_seed(5))
    assert not torch.equal(other.W, W)
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(other(x)[0], mixer(x)[0])
    first, second = (other.redraw(torch.Generator().manual_seed(6)) or other.W.clone() for _ in range(2))
    assert torch.equal(first, second)


def test_default_number_of_features():
    assert build(heads=1).W.shape == (int(D * math.log(D)), D)
    assert build(heads=D).W.shape == (1, 1)
