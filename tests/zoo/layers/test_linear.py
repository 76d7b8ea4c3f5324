"""Linear layers of several outputs of one input, and of few outputs in full precision."""

import pytest
import torch

from zoo.layers.linear import few, joined


@pytest.mark.parametrize("shape", [(3, 7), (2, 40, 7)], ids=str)
def test_several_of_one_input(shape):
    torch.manual_seed(0)
    x, weights = torch.randn(shape), [torch.randn(F, 7) for F in (9, 2, 5)]
    torch.testing.assert_close(joined(x, *weights), torch.cat([x @ w.mT for w in weights], dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_few_numbers_of_each_row(dtype):
    """In float32 though autocast is on, whatever x is."""
    torch.manual_seed(0)
    x, w = torch.randn(2, 75, 33).to(dtype), torch.randn(3, 33)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = few(x, w.to(torch.promote_types(dtype, torch.float32)))
    assert y.dtype is torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(y.double(), x.double() @ w.double().mT, rtol=1e-5, atol=1e-5)
