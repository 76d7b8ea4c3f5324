"""The Cauchy kernel of bilinear DPLR systems against dense complex matrices."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo.ops import cauchy, flops, forms
from zoo.ops.kernel_log import record_kernels

from .conftest import assert_near, assert_same, differentiated

H, M = 3, 4
SIZES = pytest.mark.parametrize(("R", "K", "L"), [(1, 1, 1), (1, 1, 2), (1, 2, 7), (1, 1, 8), (2, 1, 8), (3, 2, 9)])


def draw(R=1, K=1, seed=0):
    """A stable system in float64: a, p, b, c."""
    torch.manual_seed(seed)

    def z(*shape):
        return torch.randn(*shape, dtype=torch.complex128)

    a = -torch.rand(H, M, dtype=torch.float64) - 1j * 3 * torch.rand(H, M, dtype=torch.float64)
    return a, 0.5 * z(R, H, M), z(H, M), z(K, H, M)


@SIZES
def test_kernel_and_its_gradients(form, R, K, L):
    parts = draw(R, K)
    with record_kernels() as kernels:
        assert_same(*(lambda *x, f=f: f(*x, L) for f in (cauchy.kernel, cauchy.kernel_naive)), *parts, tolerance=1e-8)
    assert kernels == {"cauchy": "compiled loop" if form == "compiled" else "torch"}


def test_more_frequencies_than_a_loop_takes_at_once(form, monkeypatch):
    """And in float32, against torch's form in float64."""
    parts = [x.to(torch.complex64) for x in draw(K=2)]
    low = differentiated(lambda *x: cauchy.kernel(*x, 1031), *parts)
    monkeypatch.setattr(forms, "available", lambda: False)
    assert_near(low, differentiated(lambda *x: cauchy.kernel(*x, 1031), *(x.cdouble() for x in parts)), 1e-5)


@pytest.mark.parametrize("backward", [False, True])
def test_counts_the_same_in_either_form(form, backward):
    """Four real products of (K + R)(1 + R) × M × (L/2 + 1), an FFT per kernel, and twice the products backward."""
    parts, L = [x.requires_grad_() for x in draw(K=2)], 8
    with flops.Counter() as own, FlopCounterMode(display=False) as products:
        y = cauchy.kernel(*parts, L)
        if backward:
            y.sum().backward()
    sums = 4 * 2 * H * (2 + 1) * (1 + 1) * M * (L // 2 + 1)
    assert own.total + products.get_total_flops() == 2 * H * flops.rfft(L) + sums * (3 if backward else 1)
