"""The convolutions by FFT equal the direct sum: values, gradients, precision, FLOP counts."""

import pytest
import torch

from zoo.ops import flops, forms
from zoo.ops.long_convolution import convolve, convolve_naive, skipping
from zoo.ops.long_convolution.fft import fast_length


def inputs(B, T, D, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(B, T, D, dtype=dtype, requires_grad=True), torch.randn(D, T, dtype=dtype, requires_grad=True)]


@pytest.fixture(params=["loops", "torch"], autouse=True)
def form(request, monkeypatch):
    """In compiled loops, and by torch's transforms."""
    if request.param == "torch":
        monkeypatch.setattr(forms, "available", lambda: False)
    elif not forms.available():
        pytest.skip("needs numba")


def equal(u, K, *skip):
    fast, slow = convolve(u, K, *skip), convolve_naive(u, K, *skip)
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)
    cotangent = torch.randn_like(slow)
    got, expected = (torch.autograd.grad(y, (u, K, *skip), cotangent) for y in (fast, slow))
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("T", [1, 2, 7, 32, 61, 351, 600])
def test_equals_the_direct_sum(T):
    equal(*inputs(2, T, 3))


@pytest.mark.parametrize("D", [16, 37])
def test_channels_in_blocks_and_any_layout(D):
    u, K = inputs(3, 20, D)
    equal(u.mT.contiguous().mT, K.T.contiguous().T, torch.randn(D, dtype=K.dtype, requires_grad=True))


@pytest.mark.parametrize("T", [1, 5])
def test_gradcheck(T):
    assert torch.autograd.gradcheck(convolve, inputs(2, T, 2))


def test_is_causal_and_does_not_wrap():
    """An impulse at the last step meets a kernel as long as the sequence and reaches no earlier output."""
    u = torch.zeros(1, 8, 1, dtype=torch.float64)
    u[:, -1] = 1
    y = convolve(u, torch.ones(1, 8, dtype=torch.float64))
    assert y[:, :-1].abs().max() < 1e-14
    torch.testing.assert_close(y[0, -1, 0], torch.tensor(1.0, dtype=torch.float64))


def test_computes_in_float32_under_autocast():
    u, K = inputs(2, 33, 3, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, half = convolve(u, K), convolve(u.bfloat16(), K)
    assert (y.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(y, convolve(u, K), rtol=0, atol=0)
    torch.testing.assert_close(half, convolve(u.bfloat16().float(), K).bfloat16(), rtol=0, atol=0)


def test_works_without_data():
    u, K = (x.detach().to("meta").requires_grad_() for x in inputs(2, 9, 3))
    y = convolve(u, K)
    y.sum().backward()
    assert y.shape == u.grad.shape == (2, 9, 3)
    assert K.grad.shape == (3, 9)


def test_rejects_a_kernel_of_another_length():
    with pytest.raises(ValueError, match="expected"):
        convolve(torch.rand(2, 5, 3), torch.rand(3, 6))


def test_counts_its_transforms():
    u, K = inputs(2, 128, 3)
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
