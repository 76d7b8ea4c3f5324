"""Functions of each number, and rotations: the compiled passes equal the naive forms, in outputs and gradients."""

import pytest
import torch

from zoo.ops import compiled, scalar_maps
from zoo.ops.rotation import rotate, rotate_naive
from zoo.ops.scalar_maps import naive

from .conftest import differentiated

pytestmark = pytest.mark.skipif(not compiled.available(), reason="numba is not installed")
DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)


def assert_close(form, naive_form, x, tolerance):
    for have, want in zip(differentiated(form, x), differentiated(naive_form, x.double()), strict=True):
        torch.testing.assert_close(have.double(), want, rtol=tolerance, atol=tolerance)


@DTYPES
@pytest.mark.parametrize("width", [3, 64])
def test_maps(dtype, tolerance, width):
    x = (4 * torch.randn(2, 9, width)).to(dtype)
    assert_close(scalar_maps.positive, naive.positive, x, tolerance)
    assert_close(lambda x: scalar_maps.log_sigmoid(x, 0.3), lambda x: naive.log_sigmoid(x, 0.3), x, tolerance)


@DTYPES
@pytest.mark.parametrize("rows", [1, 2])
def test_rotations(dtype, tolerance, rows):
    by = torch.randn(2, rows, 9, 5, dtype=torch.float64)
    assert_close(lambda x: rotate(x, *by), lambda x: rotate_naive(x, *by), torch.randn(2, 9, 10).to(dtype), tolerance)


def test_what_is_far_from_zero():
    x = torch.tensor([-1e4, -100.0, 100.0, 1e4])
    assert torch.equal(scalar_maps.positive(x), torch.tensor([0.0, 0.0, 101.0, 10001.0]))
    torch.testing.assert_close(scalar_maps.log_sigmoid(x), torch.tensor([-1e4, -100.0, 0.0, 0.0]))
