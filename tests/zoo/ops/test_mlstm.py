"""mLSTM in chunks against the loop in float64; resumed spans."""

from functools import partial

import pytest
import torch

from zoo.ops.mlstm import mlstm, mlstm_naive

from .conftest import assert_near_float64, assert_same

B, H, K, V = 3, 2, 16, 24


def inputs(T, dtype=torch.float64):
    """q, k, v and both gates' pre-activations; forget gates mostly open, as they start."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, H, T, size, dtype=dtype) for size in (K, K, V))
    i, f = torch.randn(B, H, T, dtype=dtype), 3 + 2 * torch.randn(B, H, T, dtype=dtype)
    return [q, k, v, i, f]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("T", [2, 37, 200])
def test_narrow_products_against_float64(T, dtype):
    """Gates stay float32. Keys and queries are positive: about n · q = 0 gradients jump, and rounding shows nothing."""
    bound = 1e-5 if dtype is torch.float32 else 4e-2  # what h is divided by is rounded to bfloat16 as well
    q, k, *rest = inputs(T)
    narrow = [x.to(dtype if x.ndim == 4 else torch.float32) for x in (q.abs(), k.abs(), *rest)]
    mask = torch.arange(T) < torch.tensor([T, T, (T + 1) // 2])[:, None]
    assert mlstm(*narrow)[0].dtype is torch.float32
    assert_near_float64(valid_outputs(mlstm, mask), valid_outputs(mlstm_naive, mask), *narrow, limit=bound)


def valid_outputs(op, mask):
    """A form whose outputs are zeros in padding, and whose state has no gradient."""

    def run(*x):
        h, state = op(*x, mask=mask)
        return h * mask[:, None, :, None], *(part.detach() for part in state)

    return run


def test_chunks_are_the_loop():
    forms = (valid_outputs(partial(op, eps=0.0), torch.ones(B, 75, dtype=torch.bool)) for op in (mlstm, mlstm_naive))
    assert_same(*forms, *inputs(75), tolerance=1e-8)


def test_spans_one_after_another():
    args = inputs(150)
    whole, state = mlstm(*args)
    first, middle = mlstm(*(x[:, :, :70] for x in args))
    second, end = mlstm(*(x[:, :, 70:] for x in args), middle)
    torch.testing.assert_close(torch.cat([first, second], 2), whole)
    torch.testing.assert_close(end, state)
