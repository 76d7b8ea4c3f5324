"""sLSTM's forms equal the loop as written: outputs, state, gradients, masks, resumed states."""

import pytest
import torch

from zoo.ops import forms
from zoo.ops import official as kernels
from zoo.ops.slstm import slstm, slstm_naive


@pytest.fixture(params=["compiled loop", "steps"], autouse=True)
def form(request, monkeypatch):
    if request.param == "steps":
        monkeypatch.setattr(forms, "supports", lambda *tensors: False)
    return request.param


def inputs(T, H=2, B=3, d=5, dtype=torch.float64):
    torch.manual_seed(0)
    gates = [2 * torch.randn(H, B, T, d, dtype=dtype) for _ in range(4)]
    R, b = torch.randn(H, 4, d, d, dtype=dtype) / d**0.5, torch.randn(H, 4, d, dtype=dtype)
    return [x.requires_grad_() for x in (*gates, R, b)]


def some_state(H=2, B=3, d=5):
    h, c, m = (torch.randn(B, H, d, dtype=torch.float64) for _ in range(3))
    return h.requires_grad_(), c.requires_grad_(), (1 + torch.rand_like(m)).requires_grad_(), m


def padding(T, B=3):
    """Rows of full, half and no length."""
    return torch.arange(T) < torch.tensor([T, T // 2, 0][:B])[:, None]


def compare(args, state=None, mask=None, **tolerance):
    leaves = [*args, *(state[:3] if state else ())]
    got, wanted = ([y, *after] for y, after in (f(*args, state, mask) for f in (slstm, slstm_naive)))
    torch.testing.assert_close(got, wanted, **tolerance)
    cotangents = [torch.randn_like(x) for x in wanted[:4]]  # m has no gradient
    grads = [torch.autograd.grad(found[:4], leaves, cotangents) for found in (got, wanted)]
    torch.testing.assert_close(*grads, **tolerance)


def test_which_form_ran(form):
    slstm(*inputs(3))
    assert kernels.used["slstm"] == form


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("T", [1, 2, 13, 70])
def test_equals_the_loop(T, resumed, masked):
    compare(inputs(T), some_state() if resumed else None, padding(T) if masked else None, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("d", [1, 8, 24])
@pytest.mark.parametrize("B", [1, 2, 4])
def test_heads_and_batches_of_any_size(B, d):
    compare(inputs(5, B=B, d=d), rtol=1e-10, atol=1e-10)


def test_holes_in_the_mask():
    mask = torch.tensor([[True, False, True, True], [False, True, False, True], [False, False, False, False]])
    compare(inputs(4), some_state(), mask, rtol=1e-10, atol=1e-10)


def test_float32_against_float64():
    exact = inputs(100, d=16)
    narrow = [x.detach().float().requires_grad_() for x in exact]
    y, wanted = slstm(*narrow)[0], slstm_naive(*exact)[0]
    torch.testing.assert_close(y.double(), wanted, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(wanted)
    for got, true in zip(
        torch.autograd.grad(y, narrow, weight.float()), torch.autograd.grad(wanted, exact, weight), strict=True
    ):
        assert (got.double() - true).norm() < 1e-4 * true.norm()


def test_junk_in_padding_leaves_no_trace():
    args, mask = inputs(8), padding(8)
    spoilt = [
        x.detach().masked_fill(~mask[None, :, :, None], float("nan")).requires_grad_() if x.ndim == 4 and j < 4 else x
        for j, x in enumerate(args)
    ]
    (y, state), (y2, state2) = slstm(*args, None, mask), slstm(*spoilt, None, mask)
    torch.testing.assert_close((y2, *state2), (y, *state), rtol=0, atol=0)


def test_float32_under_autocast():
    args = [x.detach() for x in inputs(6, dtype=torch.float32)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = slstm(*args)
    torch.testing.assert_close(y, slstm(*args)[0], rtol=0, atol=0)
    assert all(x.dtype is torch.float32 for x in state)
