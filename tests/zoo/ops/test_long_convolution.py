"""The FFT convolution equals the direct sum: values, gradients, precision, FLOP counts."""

import pytest
import torch

from zoo.ops import compiled, flops, kernels
from zoo.ops.long_convolution import convolve, convolve_naive, convolve_taps, convolve_taps_naive, skipping
from zoo.ops.long_convolution.fft import fast_length


def inputs(B, T, D, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(B, T, D, dtype=dtype, requires_grad=True), torch.randn(D, T, dtype=dtype, requires_grad=True)]


@pytest.mark.parametrize("T", [1, 2, 7, 32, 61])
def test_equals_the_direct_sum(T):
    u, K = inputs(2, T, 3)
    fast, slow = convolve(u, K), convolve_naive(u, K)
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)
    cotangent = torch.randn_like(slow)
    got, expected = (torch.autograd.grad(y, (u, K), cotangent) for y in (fast, slow))
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


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


@pytest.fixture(params=["compiled loop", "conv1d"])
def form(request, monkeypatch):
    if request.param == "conv1d":
        monkeypatch.setattr(compiled, "serves", lambda *tensors: False)
    return request.param


@pytest.mark.parametrize("rest", ["", "bias", "bias, before, mask"])
@pytest.mark.parametrize("N", [1, 3, 64])
@pytest.mark.parametrize("T", [1, 2, 7, 70])
def test_taps_equal_the_direct_sum(form, T, N, rest):
    u, _ = inputs(3, T, 70)
    K, bias = torch.randn(70, N).double().requires_grad_(), torch.randn(70).double().requires_grad_()
    before = torch.randn(3, N - 1, 70).double().requires_grad_()
    args = [u, K, bias if "bias" in rest else None, before if "before" in rest else None]
    mask = torch.arange(T) < torch.tensor([T, T // 2, 0])[:, None] if "mask" in rest else None
    fast, slow = convolve_taps(*args, mask), convolve_taps_naive(*args, mask)
    assert kernels.used["short_convolution"] == form
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)
    cotangent, wanted = torch.randn_like(slow), [x for x in args if x is not None]
    got, expected = (torch.autograd.grad(y, wanted, cotangent) for y in (fast, slow))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_taps_answer_in_float32_under_autocast(form):
    u, K = torch.randn(2, 33, 5), torch.randn(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, half = convolve_taps(u, K), convolve_taps(u.bfloat16(), K)
    assert y.dtype is half.dtype is torch.float32
    torch.testing.assert_close(y, convolve_taps_naive(u.double(), K.double()).float())
    torch.testing.assert_close(half, convolve_taps_naive(u.bfloat16().double(), K.double()).float())


def test_junk_in_padding_reaches_nothing(form):
    u, K = torch.randn(1, 6, 3), torch.randn(3, 4)
    mask = torch.arange(6)[None] < 4
    junk = u.masked_fill(~mask[..., None], float("nan"))
    torch.testing.assert_close(convolve_taps(junk, K, mask=mask), convolve_taps(u, K, mask=mask), rtol=0, atol=0)


def test_taps_reject_other_channels():
    with pytest.raises(ValueError, match="expected"):
        convolve_taps(torch.rand(2, 5, 3), torch.rand(4, 2))


def test_skipping_adds_a_multiple_of_the_input():
    (u, K), skip = inputs(2, 7, 3), torch.randn(3).double()
    torch.testing.assert_close(convolve(u, skipping(K, skip)), convolve(u, K) + skip * u)
