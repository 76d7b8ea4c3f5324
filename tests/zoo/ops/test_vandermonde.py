"""Factored powers equal powers written out."""

import pytest
import torch

from zoo.ops.vandermonde import accumulate, accumulate_naive, evaluate, evaluate_naive


def modes():
    torch.manual_seed(0)
    log_a = torch.complex(-torch.rand(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64))
    return log_a.requires_grad_()


@pytest.mark.parametrize("L", [1, 2, 3, 17, 64, 65])
def test_evaluate_equals_naive(L):
    log_a, c = modes(), torch.randn(2, 3, 4, dtype=torch.complex128, requires_grad=True)
    compare(evaluate(c, log_a, L), evaluate_naive(c, log_a, L), (c, log_a))


@pytest.mark.parametrize("L", [1, 2, 3, 17, 64, 65])
def test_accumulate_equals_naive(L):
    log_a, u = modes(), torch.randn(2, L, 3, dtype=torch.float64, requires_grad=True)
    compare(accumulate(u, log_a), accumulate_naive(u, log_a), (u, log_a))


def compare(fast, slow, inputs):
    """Values and gradients."""
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)
    cotangent = torch.randn_like(slow)
    got, expected = (torch.autograd.grad(y, inputs, cotangent, allow_unused=True) for y in (fast, slow))
    for one, other, x in zip(got, expected, inputs, strict=True):
        zero = torch.zeros_like(x)
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other)
