"""Products in fewer passes equal torch's under autocast, in outputs and gradients."""

import pytest
import torch

from zoo.ops import forms
from zoo.ops.linear import fused, naive

from .conftest import differentiated

needs_product = pytest.mark.skipif(not fused._there(), reason="this torch has no such product")


@needs_product
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


@needs_product
def test_what_needs_no_gradient_gets_none():
    x, w, b = torch.randn(3, 7), torch.randn(9, 7, requires_grad=True), torch.randn(9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused.linear(x, w, b).sum().backward()
    assert w.grad is not None
    assert x.grad is b.grad is None


@needs_product
def test_in_float32():
    torch.manual_seed(0)
    inputs = torch.randn(3, 7), torch.randn(9, 7), torch.randn(9)
    for ours, true in zip(differentiated(fused.linear, *inputs), differentiated(naive.linear, *inputs), strict=True):
        torch.testing.assert_close(ours, true)


@pytest.mark.parametrize("shape", [(3, 7), (2, 40, 7)], ids=str)
def test_several_of_one_input(shape):
    torch.manual_seed(0)
    inputs = torch.randn(shape), torch.randn(9, 7), torch.randn(2, 7), torch.randn(5, 7)
    for ours, true in zip(differentiated(fused.joined, *inputs), differentiated(naive.joined, *inputs), strict=True):
        torch.testing.assert_close(ours, true)


@pytest.mark.skipif(not forms.available(), reason="needs numba")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_few_numbers_of_each_row(dtype, monkeypatch):
    """In float32 though autocast is on, whatever x is; more rows than a work item has."""
    monkeypatch.setattr(forms, "FEW", 0)
    torch.manual_seed(0)
    wide = torch.promote_types(dtype, torch.float32)
    inputs = torch.randn(2, 75, 33).to(dtype), torch.randn(3, 33, dtype=wide)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = differentiated(fused.few, *inputs)
    want = differentiated(naive.few, *(x.double() for x in inputs))
    assert got[0].dtype is wide
    for ours, true in zip(got, want, strict=True):
        limit = 1e-2 if ours.dtype is torch.bfloat16 else 1e-6 if wide is torch.float32 else 1e-13
        assert float((ours.double() - true.double()).norm()) <= limit * float(true.double().norm())
