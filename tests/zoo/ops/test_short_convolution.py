"""The short convolution as a compiled loop equals torch's, in outputs, last state and gradients."""

from unittest import mock

import pytest
import torch

from zoo.layers.short_convolution import ShortConvolution
from zoo.ops import forms
from zoo.ops import official as kernels
from zoo.ops.short_convolution import Unit, short_convolution, short_convolution_naive

B, D = 3, 70
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1e-2}


def results(conv, x, mask, state):
    """y, the last state, and gradients by x, the state and every parameter; x is a view whose rows lie apart."""
    x = x.detach().requires_grad_()
    state = state if state is None else state.detach().requires_grad_()
    y, last = conv(x[..., 3:-2], mask=mask, state=state)
    torch.manual_seed(1)
    loss = (y * torch.randn(y.shape)).sum()
    inputs = [x, *conv.parameters()]
    if last is not None:
        loss, inputs = loss + (last * torch.randn(last.shape)).sum(), [*inputs, state]
    return [y, last, *torch.autograd.grad(loss, inputs, materialize_grads=True)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("T", [1, 2, 3, 31, 32, 33, 70])
@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
def test_equals_torch(dtype, T, kernel, masked, resumed):
    torch.manual_seed(0)
    wide = torch.promote_types(dtype, torch.float32)
    x = torch.randn(B, T, D + 5).to(dtype)
    mask = torch.arange(T) < torch.tensor([T, T // 2, 0])[:, None] if masked else None
    if mask is not None:
        x = x.masked_fill(~mask[..., None], float("nan"))
    state = torch.randn(B, D, kernel - 1, dtype=wide) if resumed else None
    for bias, activation in ((True, "silu"), (False, "silu"), (True, None)):
        conv = ShortConvolution(D, kernel, bias=bias, activation=activation).to(wide)
        have = results(conv, x, mask, state)
        assert kernels.used["short_convolution"] == ("conv1d" if resumed and T == 1 else "compiled loop")
        with mock.patch("zoo.ops.forms.serves", return_value=False):
            want = results(conv, x, mask, state)
        for one, other in zip(have, want, strict=True):
            if other is not None:
                limit = TOLERANCE[other.dtype]
                torch.testing.assert_close(one, other, rtol=limit, atol=limit)


def test_narrow_is_rounded_to_the_dtype_of_x():
    torch.manual_seed(0)
    conv, x = ShortConvolution(D, 4), torch.randn(B, 33, D).bfloat16().requires_grad_()
    wide, narrow = conv(x)[0], conv(x, narrow=True)[0]
    assert torch.equal(narrow, wide.bfloat16())
    dy = torch.randn(B, 33, D).bfloat16()
    gradients = (torch.autograd.grad(y, [x, conv.weight], dy.to(y.dtype)) for y in (wide, narrow))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.fixture(params=["compiled loop", "conv1d"])
def form(request, monkeypatch):
    if request.param == "conv1d":
        monkeypatch.setattr(forms, "supports", lambda *tensors: False)
    return request.param


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("heads", [1, 7, 70])
@pytest.mark.parametrize(("D", "W"), [(70, 4), (560, 1), (560, 9)])
def test_unit_vectors(form, D, W, heads, silu):
    x, w = torch.randn(2, 21, D).double().requires_grad_(), torch.randn(D, W).double().requires_grad_()
    lengths = (0.3, *(0.0, 1.5) * heads)[:heads]
    mask, how = torch.arange(21) < torch.tensor([21, 8])[:, None], {"silu": silu, "unit": Unit(lengths)}
    fast, slow = short_convolution(x, w, mask=mask, **how), short_convolution_naive(x, w, mask=mask, **how)
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)
    cotangent = torch.randn_like(slow)
    got, expected = (torch.autograd.grad(y, [x, w], cotangent) for y in (fast, slow))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rest", ["", "bias", "bias, before, mask"])
@pytest.mark.parametrize("N", [1, 3, 64])
@pytest.mark.parametrize("T", [1, 2, 7, 70])
def test_equals_the_direct_sum(form, T, N, rest):
    u = torch.randn(3, T, 70).double().requires_grad_()
    K, bias = torch.randn(70, N).double().requires_grad_(), torch.randn(70).double().requires_grad_()
    before = torch.randn(3, N - 1, 70).double().requires_grad_()
    args = [u, K, bias if "bias" in rest else None, before if "before" in rest else None]
    mask = torch.arange(T) < torch.tensor([T, T // 2, 0])[:, None] if "mask" in rest else None
    fast, slow = short_convolution(*args, mask), short_convolution_naive(*args, mask)
    assert kernels.used["short_convolution"] == ("conv1d" if T == 1 and args[3] is not None else form)
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)
    cotangent, wanted = torch.randn_like(slow), [x for x in args if x is not None]
    got, expected = (torch.autograd.grad(y, wanted, cotangent) for y in (fast, slow))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_answer_in_float32_under_autocast(form):
    u, K = torch.randn(2, 33, 5), torch.randn(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, half = short_convolution(u, K), short_convolution(u.bfloat16(), K)
    assert y.dtype is half.dtype is torch.float32
    torch.testing.assert_close(y, short_convolution_naive(u.double(), K.double()).float())
    torch.testing.assert_close(half, short_convolution_naive(u.bfloat16().double(), K.double()).float())


def test_junk_in_padding_reaches_nothing(form):
    u, K = torch.randn(1, 6, 3), torch.randn(3, 4)
    mask = torch.arange(6)[None] < 4
    junk = u.masked_fill(~mask[..., None], float("nan"))
    torch.testing.assert_close(
        short_convolution(junk, K, mask=mask), short_convolution(u, K, mask=mask), rtol=0, atol=0
    )


def test_reject_other_channels():
    with pytest.raises(ValueError, match="expected"):
        short_convolution(torch.rand(2, 5, 3), torch.rand(4, 2))


def test_bfloat16_beside_float64(form):
    x, w = torch.randn(2, 33, 70).bfloat16(), torch.randn(70, 4).double()
    torch.testing.assert_close(short_convolution(x, w), short_convolution_naive(x.double(), w), rtol=1e-12, atol=1e-12)
