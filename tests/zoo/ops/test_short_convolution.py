"""The short convolution as a compiled loop equals torch's, in outputs, last state and gradients."""

from unittest import mock

import pytest
import torch

from zoo.mixers.short_convolution import ShortConvolution
from zoo.ops import kernels

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
        with mock.patch("zoo.ops.compiled.serves", return_value=False):
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
