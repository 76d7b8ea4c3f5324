"""The convolutions by FFT equal the direct sum: values, gradients, precision, FLOP counts."""

import pytest
import torch

from zoo.ops import flops
from zoo.ops.long_convolution import convolve, convolve_naive, skipping
from zoo.ops.long_convolution.fft import fast_length

from .conftest import assert_same

pytestmark = pytest.mark.usefixtures("form")


def inputs(B, T, D, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(B, T, D, dtype=dtype), torch.randn(D, T, dtype=dtype)


@pytest.mark.parametrize("T", [1, 2, 7, 32, 61, 351, 600])
def test_equals_the_direct_sum(T):
    assert_same(convolve, convolve_naive, *inputs(2, T, 3))


@pytest.mark.parametrize("D", [16, 37])
def test_channels_in_blocks_and_any_layout(D):
    u, K = inputs(3, 20, D)
    turned = [
        lambda u, K, skip, f=f: f(u.mT.contiguous().mT, K.T.contiguous().T, skip) for f in (convolve, convolve_naive)
    ]
    assert_same(*turned, u, K, torch.randn(D, dtype=K.dtype))


def test_is_causal_and_does_not_wrap():
    """An impulse at the last step meets a kernel as long as the sequence and reaches no earlier output."""
    u = torch.zeros(1, 8, 1, dtype=torch.float64)
    u[:, -1] = 1
    y = convolve(u, torch.ones(1, 8, dtype=torch.float64))
    assert y[:, :-1].abs().max() < 1e-14
    torch.testing.assert_close(y[0, -1, 0], torch.tensor(1.0, dtype=torch.float64))


def test_rejects_a_kernel_of_another_length():
    with pytest.raises(ValueError, match="expected"):
        convolve(torch.rand(2, 5, 3), torch.rand(3, 6))


def test_counts_its_transforms():
    u, K = (x.requires_grad_() for x in inputs(2, 128, 3))
    with flops.Counter() as counter:
        convolve(u, K).sum().backward()
    assert counter.by_name == {"long_convolution": 2 * (2 * 2 + 1) * 3 * 5 * 256 * 8 // 2}


@pytest.mark.parametrize(("least", "length"), [(1, 2), (3, 4), (11, 12), (13, 16), (121, 128), (255, 256), (257, 270)])
def test_fast_lengths_are_even_and_smooth(least, length):
    assert fast_length(least) == length


def test_a_kernel_that_skips():
    (u, K), skip = inputs(2, 7, 3), torch.randn(3).double()
    torch.testing.assert_close(convolve(u, skipping(K, skip)), convolve(u, K, skip))
    torch.testing.assert_close(convolve(u, K, 2.0), convolve(u, K) + 2 * u)
