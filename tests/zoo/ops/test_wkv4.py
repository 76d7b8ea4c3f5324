"""WKV through the scan, and compiled, equals the loop: outputs, state, gradients, masks, extreme keys."""

import pytest
import torch

from zoo.ops import flops
from zoo.ops.wkv4 import wkv, wkv_naive

from .conftest import assert_same, padding

pytestmark = pytest.mark.usefixtures("form")


def inputs(T, B=3, C=5, *, spread=3.0, dtype=torch.float64):
    torch.manual_seed(0)
    w, u = -torch.exp(2 * torch.randn(C, dtype=dtype)), torch.randn(C, dtype=dtype)
    return [w, u, spread * torch.randn(B, T, C, dtype=dtype), torch.randn(B, T, C, dtype=dtype)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(("T", "C"), [(1, 5), (13, 5), (130, 5), (70, 130)])
def test_equals_the_loop(T, C, resumed, masked):
    """Of the state, what p and q stand for: alone they are relative to an exponent."""
    args, q0 = inputs(T, C=C), torch.rand(3, C, dtype=torch.float64)

    def all_of(op):
        def run(w, u, k, v, p=None, q=None):
            before = None if p is None else {"p": p, "q": q, "o": 1 - q0}
            y, state = op(w, u, k, v, before, padding(T) if masked else None)
            return y, state["p"] * state["o"].exp(), state["q"] * state["o"].exp()

        return run

    assert_same(all_of(wkv), all_of(wkv_naive), *args, *((1 - 2 * q0, q0) if resumed else ()), tolerance=1e-9)


def test_the_state_is_that_of_the_loop():
    torch.testing.assert_close(wkv(*inputs(70))[1], wkv_naive(*inputs(70))[1], rtol=1e-11, atol=1e-11)


def test_is_the_weighted_mean_of_the_paper():
    """Against the two sums written out, without any stabilisation."""
    w, u, k, v = inputs(6, spread=1.0)
    y, _ = wkv(w, u, k, v)
    for t in range(6):
        weights = [torch.exp((t - 1 - s) * w + k[:, s]) for s in range(t)] + [torch.exp(u + k[:, t])]
        mean = sum(e * v[:, s] for s, e in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(y[:, t], mean)


@pytest.mark.parametrize("size", [80.0, 1e4])
def test_extreme_keys_stay_finite_in_float32(size):
    w, u, k, v = inputs(64, dtype=torch.float32)
    k = (size * k.sign()).requires_grad_()
    y, state = wkv(w, u, k, v)
    (gradient,) = torch.autograd.grad(y.sum(), k)
    assert all(x.isfinite().all() for x in (y, gradient, *state.values()))
    if size < 100:  # beyond, float32 itself cannot tell keys apart
        torch.testing.assert_close(y, wkv_naive(w, u, k, v)[0], rtol=1e-4, atol=1e-4)


def test_counts_two_recurrences():
    args = [x.requires_grad_() for x in inputs(9)]
    with flops.Counter() as counter:
        wkv(*args)[0].sum().backward()
    assert counter.total == 12 * 3 * 9 * 5
