"""Queries, keys and values cut out of features, and pairs of them turned by their positions."""

import torch

from zoo.layers.qkv import Turn, rotate, split, turn


def test_heads_in_order():
    x = torch.arange(2 * 3 * 16.0).view(2, 3, 16)
    q, k, v = split(x, 2, 1)
    heads = x.unflatten(-1, (4, 4)).transpose(1, 2)
    for y, want in ((q, heads[:, :2]), (k, heads[:, 2:3]), (v, heads[:, 3:])):
        assert torch.equal(y, want)


def test_a_turn_by_a_right_angle():
    x, right = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]), torch.full((1, 1, 2), torch.pi / 2)
    for convention, want in (("half", [-3, -4, 1, 2]), ("interleaved", [-2, 1, -4, 3])):
        torch.testing.assert_close(
            turn(x, Turn(right.cos(), right.sin(), convention)).flatten(), torch.tensor(want) * 1.0
        )


def test_features_behind_the_pairs_stay():
    torch.manual_seed(0)
    x, angle = torch.randn(2, 3, 5, 8), torch.randn(1, 5, 2)
    q, k, v = split(torch.randn(2, 5, 24), 1, 1, Turn(angle.cos(), angle.sin(), "half"))
    turned = turn(x, Turn(angle.cos(), angle.sin(), "half"))
    assert torch.equal(turned[..., 4:], x[..., 4:])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert q.shape == k.shape == v.shape == (2, 1, 5, 8)


def test_rotations_are_complex_products():
    torch.manual_seed(0)
    x, by = torch.randn(2, 9, 10), torch.randn(2, 9, 5, dtype=torch.complex64)
    want = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * by).flatten(-2)
    torch.testing.assert_close(rotate(x, by.real, by.imag), want)
    assert rotate(x.bfloat16(), by.real, by.imag).dtype is torch.bfloat16
