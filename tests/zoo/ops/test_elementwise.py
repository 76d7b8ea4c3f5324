"""Elementwise passes equal torch's several, in outputs and gradients."""

import pytest
import torch

from zoo.ops import elementwise, forms
from zoo.ops.elementwise import naive

from .conftest import differentiated

pytestmark = pytest.mark.skipif(not forms.available(), reason="needs numba")
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 5e-3}
SHAPES = [(3, 7), (2, 50, 683), (1, 1, 1), (0, 4), (4, 0)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_swiglu(shape, dtype):
    torch.manual_seed(0)
    g, u = (3 * torch.randn(shape)).to(dtype), torch.randn(shape).to(dtype)
    for ours, true in zip(
        differentiated(elementwise.swiglu, g, u), differentiated(naive.swiglu, g.double(), u.double()), strict=True
    ):
        assert ours.dtype is dtype
        assert float((ours.double() - true).norm()) <= TOLERANCES[dtype] * float(true.norm())


def test_swiglu_far_out():
    g = torch.tensor([[-1e4, -90.0, 90.0, 1e4]])
    y, dg, _ = differentiated(elementwise.swiglu, g, torch.ones(1, 4))
    torch.testing.assert_close(y, torch.tensor([[0.0, 0.0, 90.0, 1e4]]))
    assert bool(dg.isfinite().all())


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("function", ["positive", "log_sigmoid"])
def test_of_one_number(function, shape, dtype):
    torch.manual_seed(0)
    x = (4 * torch.randn(shape)).to(dtype)
    form, truth = (getattr(module, function) for module in (elementwise, naive))
    for ours, true in zip(differentiated(form, x), differentiated(truth, x.double()), strict=True):
        assert float((ours.double() - true).norm()) <= TOLERANCES[dtype] * float(true.norm())


def test_what_is_far_from_zero():
    x = torch.tensor([-1e4, -100.0, 100.0, 1e4])
    assert torch.equal(elementwise.positive(x), torch.tensor([0.0, 0.0, 101.0, 10001.0]))
    torch.testing.assert_close(elementwise.log_sigmoid(x), torch.tensor([-1e4, -100.0, 0.0, 0.0]))
