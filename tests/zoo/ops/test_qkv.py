"""Queries, keys and values in one pass: the same as features cut and pairs turned by torch, with gradients."""

import pytest
import torch

from zoo.ops import forms
from zoo.ops.qkv import Turn, split, split_naive, turn

from .conftest import differentiated

pytestmark = pytest.mark.skipif(not forms.available(), reason="needs numba")
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 5e-3}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("pairs", [None, 1, 4], ids=["plain", "some turn", "all turn"])
@pytest.mark.parametrize("convention", ["half", "interleaved"])
@pytest.mark.parametrize(("rows", "H", "G"), [(1, 4, 4), (3, 4, 1), (3, 6, 2)])
def test_loops_equal_torch(rows, H, G, convention, pairs, dtype):
    B, T, d = 3, 37, 8
    torch.manual_seed(0)
    x = torch.randn(B, T, (H + 2 * G) * d).to(dtype)
    turns = (None, None)
    if pairs is not None:
        wide = torch.promote_types(dtype, torch.float32)
        turns = [Turn(*torch.randn(2, rows, T, pairs, dtype=wide), convention) for _ in range(2)]
    exact = [None if by is None else Turn(by.cos.double(), by.sin.double(), convention) for by in turns]
    got = differentiated(lambda x: split(x, H, G, *turns), x)
    want = differentiated(lambda x: split_naive(x, H, G, *exact), x.double())
    for ours, true in zip(got, want, strict=True):
        assert ours.dtype is dtype
        assert float((ours.double() - true).norm()) <= TOLERANCES[dtype] * float(true.norm())


def test_the_results_are_contiguous_and_own_their_memory():
    x = torch.randn(2, 5, 24).bfloat16()
    for y in split(x, 1, 1):
        assert y.is_contiguous()
        y.zero_()
    assert bool(x.all())


def test_no_steps():
    assert [tuple(y.shape) for y in split(torch.empty(2, 0, 24), 1, 1)] == [(2, 1, 0, 8)] * 3


def test_a_turn_by_a_right_angle():
    x, right = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]), torch.full((1, 1, 2), torch.pi / 2)
    for convention, want in (("half", [-3, -4, 1, 2]), ("interleaved", [-2, 1, -4, 3])):
        torch.testing.assert_close(
            turn(x, Turn(right.cos(), right.sin(), convention)).flatten(), torch.tensor(want) * 1.0
        )
