"""The compiled φ equals torch's, in outputs and gradients."""

import pytest
import torch

from zoo.ops import elementwise, forms
from zoo.ops.elementwise import naive
from zoo.ops.kernel_log import record_kernels

from ..conftest import differentiated

pytestmark = pytest.mark.skipif(not forms.available(), reason="needs numba")
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 5e-3}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", [(3, 7), (2, 50, 683), (1, 1, 1), (0, 4), (4, 0)], ids=str)
def test_positive(shape, dtype):
    torch.manual_seed(0)
    x = (4 * torch.randn(shape)).to(dtype)
    with record_kernels() as log:
        got = differentiated(elementwise.positive, x)
    assert log == {"positive": "compiled loop"}
    for ours, true in zip(got, differentiated(naive.positive, x.double()), strict=True):
        assert ours.dtype is dtype
        assert float((ours.double() - true).norm()) <= TOLERANCES[dtype] * float(true.norm())


@pytest.mark.parametrize("form", [elementwise.positive, naive.positive])
def test_the_slope_is_1_at_0_and_of_nan_nan(form):
    x = torch.tensor([0.0, float("nan"), -1.0, 2.0], requires_grad=True)
    (slope,) = torch.autograd.grad(form(x).sum(), x)
    torch.testing.assert_close(slope, torch.tensor([1.0, float("nan"), 1 / torch.e, 1.0]), equal_nan=True)
