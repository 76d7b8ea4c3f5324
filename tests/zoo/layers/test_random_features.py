"""Features and attention by them equal their naive forms, in outputs and gradients."""

import pytest
import torch

from zoo.layers.random_features import HIGHEST, attend, attend_naive, positive, positive_naive

from ..ops.conftest import assert_near, differentiated

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}
d, m, EPS = 6, 20, 1e-3
W = torch.randn(m, d, generator=torch.Generator().manual_seed(0))


def close(ours, true, dtype):
    assert {x.dtype for x in ours} == {dtype}
    assert_near(ours, true, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("over", [None, "features", "sequence"])
def test_features(dtype, over):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 37, d).to(dtype)
    valid = torch.arange(37).expand(2, -1)[:, None, :, None] < torch.tensor([30, 0]).view(2, 1, 1, 1)
    have = differentiated(lambda x: positive(x, W, EPS, over, valid), x)
    # c is a constant for the gradient: of a step it is one that x moves.
    close(have, differentiated(lambda x: positive_naive(x, W.double(), EPS, over, valid), x.double()), dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_no_exponent_passes_the_highest(dtype):
    along = torch.tensor([[3 * HIGHEST**0.5]])
    y, dx = differentiated(lambda x: positive(x, along, EPS), along.to(dtype).view(1, 1, 1, 1))
    assert float(y.double().log()) == pytest.approx(HIGHEST, abs=0.01)
    assert float(dx) == 0


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("T", [5, 16, 37])
def test_attention(T, dtype):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, T, d).to(dtype), torch.randn(2, 3, T, d).to(dtype), torch.randn(2, 3, T, 5).to(dtype)
    have = differentiated(lambda *x: attend(*x, W, EPS), q, k, v)
    close(have, differentiated(lambda *x: attend_naive(*x, W.double(), EPS), *(x.double() for x in (q, k, v))), dtype)


def test_values_of_another_width_and_order():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 9, 3, width).transpose(1, 2) for width in (d, d, 2))
    torch.testing.assert_close(attend(q, k, v, W, EPS), attend_naive(q, k, v, W, EPS))
