"""mLSTM in chunks against the loop in float64; resumed spans."""

import pytest
import torch

from zoo.ops.mlstm import mlstm, mlstm_naive

B, H, K, V = 3, 2, 16, 24


def inputs(T, dtype=torch.float64):
    """q, k, v and both gates' pre-activations; forget gates mostly open, as they start."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, H, T, size, dtype=dtype) for size in (K, K, V))
    i, f = torch.randn(B, H, T, dtype=dtype), 3 + 2 * torch.randn(B, H, T, dtype=dtype)
    return [x.requires_grad_() for x in (q, k, v, i, f)]


def error(got, wanted):
    return ((got.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("T", [2, 37, 200])
def test_narrow_products_against_float64(T, dtype):
    """Gates stay float32. Keys and queries are positive: about n · q = 0 gradients jump, and rounding shows nothing."""
    bound = 1e-5 if dtype is torch.float32 else 4e-2  # what h is divided by is rounded to bfloat16 as well
    args = inputs(T)
    args[:2] = [x.abs() for x in args[:2]]
    narrow = [x.detach().to(dtype if x.ndim == 4 else torch.float32).requires_grad_() for x in args]
    exact = [x.detach().double().requires_grad_() for x in narrow]
    mask = torch.arange(T) < torch.tensor([T, T, (T + 1) // 2])[:, None]
    (h, state), (wanted, wanted_state) = mlstm(*narrow, mask=mask), mlstm_naive(*exact, mask=mask)
    on = mask[:, None, :, None].expand_as(wanted)
    assert h.dtype is torch.float32
    assert error(h[on], wanted[on]) < bound
    assert all(error(x, y) < bound for x, y in zip(state, wanted_state, strict=True))
    weight = torch.randn_like(wanted) * on
    grads = torch.autograd.grad(h, narrow, weight.float()), torch.autograd.grad(wanted, exact, weight)
    for got, true in zip(*grads, strict=True):
        assert error(got, true) < bound or true.norm() < 1e-9


def test_chunks_are_the_loop():
    args = inputs(75)
    found, wanted = mlstm(*args, eps=0.0), mlstm_naive(*args, eps=0.0)
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(wanted[0])
    grads = [torch.autograd.grad(h, args, weight) for h in (found[0], wanted[0])]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-8)


def test_spans_one_after_another():
    args = inputs(150)
    whole, state = mlstm(*args)
    first, middle = mlstm(*(x[:, :, :70] for x in args))
    second, end = mlstm(*(x[:, :, 70:] for x in args), middle)
    torch.testing.assert_close(torch.cat([first, second], 2), whole)
    torch.testing.assert_close(end, state)
