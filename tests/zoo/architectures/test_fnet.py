"""FNet's transform: the double sum, its gradient, its cost."""

import math

import pytest
import torch

from zoo.architectures.fnet import fourier, fourier_naive
from zoo.ops import flops


def written_out(x):
    """The paper's eq. 3, one entry at a time."""
    _, T, D = x.shape
    y = torch.zeros_like(x)
    for t in range(T):
        for k in range(D):
            for s in range(T):
                for d in range(D):
                    y[:, t, k] += math.cos(2 * math.pi * (t * s / T + k * d / D)) * x[:, s, d]
    return y


@pytest.mark.parametrize(("T", "D"), [(5, 4), (4, 5), (1, 3), (3, 1), (2, 2)])
def test_equals_the_double_sum(T, D):
    x = torch.randn(2, T, D, dtype=torch.float64)
    torch.testing.assert_close(fourier(x), written_out(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fourier_naive(x), written_out(x), rtol=1e-12, atol=1e-12)


def test_twice_is_almost_the_identity():
    """Re F twice is T D/2 times (x and its mirror image)."""
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    mirror = x.flip(1, 2).roll((1, 1), (1, 2))
    torch.testing.assert_close(fourier(fourier(x)), 12 * (x + mirror), rtol=1e-12, atol=1e-12)


def test_second_derivatives():
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(fourier, x)


def test_counts_its_work_forward_and_backward():
    x = torch.randn(3, 8, 16, requires_grad=True)
    with flops.Counter() as counter:
        fourier(x).sum().backward()
    assert counter.by_name == {"fourier": 2 * 3 * (8 * flops.rfft(16) + 9 * 2 * flops.rfft(8))}
