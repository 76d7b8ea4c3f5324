"""Parallax: what it computes, and that blocks of queries compute the same."""

import pytest
import torch
from torch.autograd.functional import jvp

from zoo.ops import attention
from zoo.ops.parallax import parallax, parallax_naive

from .conftest import assert_near_float64, assert_same

B, H, G, K, V = 2, 4, 2, 5, 7


def inputs(T, S):
    torch.manual_seed(T)
    return [torch.randn(B, *shape, dtype=torch.float64) for shape in ((H, T, K), (H, T, K), (G, S, K), (G, S, V))]


@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 9), (8, 8), (37, 37), (20, 37)])
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
def test_blocks_equal_the_naive_form(monkeypatch, T, S, padded):
    monkeypatch.setattr("zoo.ops.parallax.BLOCK", 8)
    itself = torch.ones(T, S).tril(S - T).triu(S - T).bool()
    visible = (torch.rand(B, 1, 1, S) < 0.7) | itself if padded else None
    assert_same(*(lambda *x, op=op: op(*x, visible=visible) for op in (parallax, parallax_naive)), *inputs(T, S))


def test_it_is_attention_less_its_slope_along_the_second_query():
    """Σ p (r·k − r·k̄) v is how attention changes with its scores as they move by r·k."""
    q, r, k, v = inputs(37, 37)
    y, slope = jvp(lambda q: attention.attend_naive(q, k, v, causal=True), q, r * K**0.5)
    torch.testing.assert_close(parallax(q, r, k, v), y - slope)


def test_bfloat16_stays_close_to_float64():
    half = [x.bfloat16() for x in inputs(200, 200)]
    assert parallax(*half).dtype == torch.bfloat16
    assert_near_float64(parallax, parallax_naive, *half, limit=0.01)


def test_heads_that_cannot_share_are_refused():
    q, r, k, v = inputs(8, 8)
    with pytest.raises(ValueError, match=r"parallax: 3 heads cannot share 2 evenly"):
        parallax(q[:, :3], r[:, :3], k, v)
