"""Factored powers equal powers written out, in values and gradients."""

import pytest
import torch

from zoo.layers.vandermonde import accumulate, accumulate_naive, evaluate, evaluate_naive

from ..ops.conftest import assert_same


@pytest.mark.parametrize("L", [1, 2, 3, 17, 64, 65])
def test_equals_naive(L):
    torch.manual_seed(0)
    log_a = torch.complex(-torch.rand(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64))
    c, u = torch.randn(2, 3, 4, dtype=torch.complex128), torch.randn(2, L, 3, dtype=torch.float64)
    assert_same(*(lambda c, log_a, f=f: f(c, log_a, L) for f in (evaluate, evaluate_naive)), c, log_a)
    assert_same(*(lambda *x, f=f: torch.view_as_real(f(*x)) for f in (accumulate, accumulate_naive)), u, log_a)
