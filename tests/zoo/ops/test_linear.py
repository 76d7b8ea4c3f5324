"""The biased product equals torch's under autocast, in outputs and gradients."""

import pytest
import torch

from zoo.ops.linear import fused, naive

from .conftest import differentiated

pytestmark = pytest.mark.skipif(not fused._there(), reason="this torch has no such product")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(7,), (2, 5, 7), (1, 40, 7)], ids=str)
def test_under_autocast(shape, dtype):
    torch.manual_seed(0)
    inputs = torch.randn(shape).to(dtype), torch.randn(9, 7), torch.randn(9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = differentiated(fused.linear, *inputs), differentiated(naive.linear, *inputs)
    for ours, true in zip(got, want, strict=True):
        assert ours.dtype is true.dtype
        assert float((ours.double() - true.double()).norm()) <= 5e-3 * float(true.double().norm())


def test_what_needs_no_gradient_gets_none():
    x, w, b = torch.randn(3, 7), torch.randn(9, 7, requires_grad=True), torch.randn(9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused.linear(x, w, b).sum().backward()
    assert w.grad is not None
    assert x.grad is b.grad is None


def test_in_float32():
    torch.manual_seed(0)
    inputs = torch.randn(3, 7), torch.randn(9, 7), torch.randn(9)
    for ours, true in zip(differentiated(fused.linear, *inputs), differentiated(naive.linear, *inputs), strict=True):
        torch.testing.assert_close(ours, true)
