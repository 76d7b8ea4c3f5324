"""WKV through the scan, and compiled, equals the loop: outputs, state, gradients, masks, extreme keys."""

import pytest
import torch

from zoo.ops import forms
from zoo.ops import official as kernels
from zoo.ops.wkv4 import init_state, wkv, wkv_naive

LENGTHS = [1, 2, 13, 32, 130]


@pytest.fixture(params=["compiled loop", "chunked scan"], autouse=True)
def form(request, monkeypatch):
    if request.param == "chunked scan":
        monkeypatch.setattr(forms, "supports", lambda *tensors: False)
    return request.param


def test_which_form_ran(form):
    wkv(*inputs(3))
    assert kernels.used["wkv4"] == form


def test_more_channels_than_a_loop_takes_at_once():
    args = inputs(70, B=2, C=130)
    (y, state), (slow, naive_state) = wkv(*args), wkv_naive(*args)
    torch.testing.assert_close([y, *actual(state)], [slow, *actual(naive_state)])
    cotangent = torch.randn_like(slow)
    got, expected = (torch.autograd.grad(x, args, cotangent) for x in (y, slow))
    torch.testing.assert_close(got, expected)


def inputs(T, B=3, C=5, *, spread=3.0, dtype=torch.float64):
    torch.manual_seed(0)
    w, u = -torch.exp(2 * torch.randn(C, dtype=dtype)), torch.randn(C, dtype=dtype)
    k, v = spread * torch.randn(B, T, C, dtype=dtype), torch.randn(B, T, C, dtype=dtype)
    return [x.requires_grad_() for x in (w, u, k, v)]


def some_state(B=3, C=5):
    q = torch.rand(B, C, dtype=torch.float64)
    return {"p": torch.randn_like(q).requires_grad_(), "q": q.requires_grad_(), "o": torch.randn_like(q)}


def padding(T, B=3):
    """Rows of full, half and no length."""
    return torch.arange(T) < torch.tensor([T, T // 2, 0][:B])[:, None]


def actual(state):
    """Numerator and denominator without their common scale."""
    return state["p"] * state["o"].exp(), state["q"] * state["o"].exp()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("T", LENGTHS)
def test_equals_the_loop(T, resumed, masked):
    args, mask = inputs(T), padding(T) if masked else None
    state = some_state() if resumed else None
    wanted = args + ([state["p"], state["q"]] if state else [])
    (fast, after), (slow, naive_after) = wkv(*args, state, mask), wkv_naive(*args, state, mask)
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(after, naive_after, rtol=1e-11, atol=1e-11)
    cotangents = [torch.randn_like(slow), torch.randn_like(slow[:, 0]), torch.randn_like(slow[:, 0])]
    got = torch.autograd.grad([fast, *actual(after)], wanted, cotangents)
    expected = torch.autograd.grad([slow, *actual(naive_after)], wanted, cotangents)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_naive_gradcheck():
    assert torch.autograd.gradcheck(lambda *args: wkv_naive(*args)[0], inputs(4, B=2, C=2))


def test_is_the_weighted_mean_of_the_paper():
    """Against the two sums written out, without any stabilisation."""
    w, u, k, v = inputs(6, spread=1.0)
    y, _ = wkv(w, u, k, v)
    for t in range(6):
        weights = [torch.exp((t - 1 - s) * w + k[:, s]) for s in range(t)] + [torch.exp(u + k[:, t])]
        mean = sum(e * v[:, s] for s, e in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(y[:, t], mean)


@pytest.mark.parametrize("junk", [1e6, float("nan")])
def test_masked_steps_leave_no_trace(junk):
    """Whatever stands in padding changes no valid output, no state and no gradient of theirs."""
    w, u, k, v = inputs(8)
    mask = padding(8)
    k2, v2 = (x.detach().masked_fill(~mask[..., None], junk) for x in (k, v))
    (y, state), (y2, state2) = wkv(w, u, k, v, None, mask), wkv(w, u, k2, v2, None, mask)
    torch.testing.assert_close(y2[mask], y[mask], rtol=0, atol=0)
    torch.testing.assert_close(state2, state, rtol=0, atol=0)
    torch.testing.assert_close(wkv(w, u, k[1:2, :4], v[1:2, :4])[1]["p"], state["p"][1:2])
    assert (state["p"][2] == 0).all()


@pytest.mark.parametrize("size", [80.0, 1e4])
def test_extreme_keys_stay_finite_in_float32(size):
    w, u, k, v = (x.detach() for x in inputs(64, dtype=torch.float32))
    k = (size * k.sign()).requires_grad_()
    y, state = wkv(w, u, k, v)
    (gradient,) = torch.autograd.grad(y.sum(), k)
    assert all(x.isfinite().all() for x in (y, gradient, *state.values()))
    if size < 100:  # beyond, float32 itself cannot tell keys apart
        torch.testing.assert_close(y, wkv_naive(w, u, k, v)[0], rtol=1e-4, atol=1e-4)


def test_computes_in_float32_under_autocast():
    args = [x.detach() for x in inputs(16, dtype=torch.float32)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = wkv(*args)
        half, wide = wkv(*args[:2], args[2].bfloat16(), args[3].bfloat16())
    torch.testing.assert_close(y, wkv(*args)[0], rtol=0, atol=0)
    assert half.dtype is torch.bfloat16
    assert all(x.dtype is torch.float32 for x in (*state.values(), *wide.values()))


def test_works_without_data():
    args = [x.detach().to("meta").requires_grad_() for x in inputs(9)]
    y, _ = wkv(*args, init_state(3, 5, device="meta"), torch.ones(3, 9, dtype=torch.bool, device="meta"))
    y.sum().backward()
    assert args[2].grad.shape == y.shape
