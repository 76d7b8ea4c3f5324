"""Retention: its two forms, far positions, decay and rotation."""

import dataclasses

import pytest
import torch

from zoo.architectures.retnet import Retention, angles, log_gammas, row_sums
from zoo.contract import LayerContext, Unsupported
from zoo.layers import qkv

from .mixers import drawn, start, vectors

B, T, D = 3, 21, 12


def build(std=0.5, **options):
    return drawn(Retention(LayerContext(width=D, length=T), heads=3, **options), std)


def test_forms_agree_but_for_epsilon():
    recurrent, parallel, x = build(), build(form="parallel"), vectors(B, T, D)
    difference = (recurrent(x)[0] - parallel(x)[0]).abs().max()
    assert 1e-8 < difference < 1e-3
    recurrent.norm.eps = parallel.norm.eps = 0.0
    torch.testing.assert_close(recurrent(x)[0], parallel(x)[0], rtol=1e-9, atol=1e-9)


def test_forms_are_one_where_scores_are_small():
    """The sum of moduli is then below 1, and clamped to it."""
    recurrent, parallel, x = build(0.05), build(0.05, form="parallel"), vectors(B, T, D)
    torch.testing.assert_close(recurrent(x)[0], parallel(x)[0], rtol=1e-9, atol=1e-12)


def test_the_parallel_form_cannot_be_continued():
    mixer, x = build(form="parallel"), vectors(B, T, D)
    assert mixer.traits == dataclasses.replace(Retention.traits, resumable=False)
    assert Retention.traits.resumable
    with pytest.raises(Unsupported, match="parallel"):
        mixer(x, state=start(mixer, x))


def rotate(x, t):
    """R_t x_t of one head."""
    return qkv.rotate(x, *angles(t, 1, x.shape[-1], x.dtype, 1.0))


@pytest.mark.parametrize("far", [10**4, 10**6])
def test_far_positions_keep_their_digits(far):
    """In float32: angles are made in float64, so scores depend on distances alone."""
    q, k = torch.randn(2, 1, 8, 16)
    t = torch.arange(8)[None]
    near, there = (rotate(q, t + s) @ rotate(k, t + s).transpose(-1, -2) for s in (0, far))
    torch.testing.assert_close(near, there, rtol=0, atol=1e-4)


def test_decay_rotation_and_row_sums():
    torch.testing.assert_close(
        log_gammas(3, torch.device("cpu")).exp(), torch.tensor([31 / 32, 63 / 64, 127 / 128]).double()
    )
    gamma = log_gammas(2, torch.device("cpu")).exp()
    want = torch.stack([gamma**n for n in range(5)]).cumsum(0).T[None]
    torch.testing.assert_close(row_sums(torch.arange(5)[None], gamma.log()), want)
    x = torch.tensor([1.0, 0, 1, 0]).double().view(1, 1, 4)
    turned = rotate(x, torch.tensor([[3]])).flatten()
    angles = torch.tensor([3.0, 3e-4]).double()
    torch.testing.assert_close(turned, torch.stack([angles.cos(), angles.sin()], -1).flatten())
