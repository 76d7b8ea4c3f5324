"""Rotations: the compiled pass equals the naive form, in outputs and gradients."""

import pytest
import torch

from zoo.ops import forms
from zoo.ops.rotation import rotate, rotate_naive

from .conftest import differentiated

pytestmark = pytest.mark.skipif(not forms.available(), reason="needs numba")


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
@pytest.mark.parametrize("rows", [1, 2])
def test_rotations(dtype, tolerance, rows):
    by = torch.randn(2, rows, 9, 5, dtype=torch.float64)
    x = torch.randn(2, 9, 10).to(dtype)
    have, want = differentiated(lambda x: rotate(x, *by), x), differentiated(lambda x: rotate_naive(x, *by), x.double())
    for ours, true in zip(have, want, strict=True):
        torch.testing.assert_close(ours.double(), true, rtol=tolerance, atol=tolerance)
