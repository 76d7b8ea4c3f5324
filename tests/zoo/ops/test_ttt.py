"""Test-time training: mini-batches equal single tokens, wherever they begin; what they are steps of."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops.ttt import titans_linear, titans_linear_naive, ttt_linear, ttt_linear_naive
from zoo.ops.ttt.naive import slopes

from .conftest import assert_near_float64, assert_same, padding

B, H, K, V, SIZE = 3, 2, 5, 7, 8


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


def inputs(T):
    torch.manual_seed(T)
    q, k, y = normal(B, H, T, K), normal(B, H, T, K), normal(B, H, T, V)
    rate, step = normal(B, H, T).sigmoid(), normal(B, 1, T).sigmoid()
    return q, k, y, rate, step, 1 + normal(H, V), normal(H, V), normal(B, H, K, V), normal(B, H, K, V)


def with_momentum(T):
    """Of Titans: a momentum and a decay in the place of `step`, and S and W beside M."""
    q, k, y, rate, _, weight, bias, M, S = inputs(T)
    log_momentum, log_decay = (-normal(B, H, T).exp() for _ in range(2))
    return q, k, y, rate, log_momentum, log_decay, weight, bias, M, S, normal(B, H, K, V)


def form(op, count=None, mask=None, size=SIZE):
    """Outputs at valid steps, and the matrices; of a mini-batch under way those stand behind the other inputs."""
    n = 9 if op in (titans_linear, titans_linear_naive) else 8

    def run(*x):
        under_way = None if count is None else (*x[n:], torch.tensor(count))
        z, (*matrices, _) = op(*x[:n], under_way, mask, size=size)
        return z if mask is None else z * mask[:, None, :, None], *matrices

    return run


@pytest.mark.parametrize("T", [1, 7, 8, 30])
@pytest.mark.parametrize("count", [None, (0, 3, 7)], ids=["fresh", "under way"])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_minibatches_equal_the_naive_form(T, count, padded):
    mask = padding(T) if padded else None
    assert_same(form(ttt_linear, count, mask), form(ttt_linear_naive, count, mask), *inputs(T), tolerance=1e-9)
    counts = [
        op(*(x := inputs(T))[:8], count and (x[8], torch.tensor(count)), mask, size=SIZE)[1][2]
        for op in (ttt_linear, ttt_linear_naive)
    ]
    steps = torch.full((B,), T) if mask is None else mask.sum(1)
    assert torch.equal(counts[0], (steps + torch.tensor(count or (0, 0, 0))) % SIZE)
    assert torch.equal(*counts)


@pytest.mark.parametrize("T", [1, 7, 8, 30])
@pytest.mark.parametrize("count", [None, (0, 3, 7)], ids=["fresh", "under way"])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_minibatches_with_momentum_equal_the_naive_form(T, count, padded):
    mask = padding(T) if padded else None
    fast, naive = (form(op, count, mask) for op in (titans_linear, titans_linear_naive))
    assert_same(fast, naive, *with_momentum(T), tolerance=1e-9)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_other_sizes(size):
    assert_same(form(ttt_linear, size=size), form(ttt_linear_naive, size=size), *inputs(30), tolerance=1e-9)
    fast, naive = (form(op, size=size) for op in (titans_linear, titans_linear_naive))
    assert_same(fast, naive, *with_momentum(30), tolerance=1e-9)


def test_without_momentum_and_forgetting_it_is_gradient_descent():
    """θ counts twice, as the loss of Titans has no ½; and a momentum that is all forgotten is that of none."""
    q, k, y, rate, step, weight, bias, W, _ = inputs(20)
    none, never = torch.full_like(rate, -torch.inf), torch.zeros_like(rate)
    z, (M, _, _, _) = titans_linear(q, k, y, rate / 2, none, never, weight, bias, W, size=SIZE)
    want, (after, G, _) = ttt_linear(q, k, y, rate, torch.ones_like(step), weight, bias, W, size=SIZE)
    torch.testing.assert_close((z, M), (want, after - G))


def test_slopes_are_those_of_the_loss():
    z, y, weight, bias = (normal(4, V) for _ in range(4))
    z.requires_grad_()
    (want,) = torch.autograd.grad((weight * F.layer_norm(z, (V,), eps=1e-6) + bias - y).square().sum() / 2, z)
    torch.testing.assert_close(slopes(z, y, weight, bias, 1e-6), want)


@pytest.mark.parametrize("op", [ttt_linear, ttt_linear_naive])
def test_a_minibatch_is_a_step_of_gradient_descent(op):
    """By the last c, down the slope of the losses of its tokens at the W before; outputs see the tokens so far."""
    q, k, y, rate, step, weight, bias, W, _ = inputs(SIZE)
    z, (after, G, _) = op(q, k, y, rate, step, weight, bias, W, size=SIZE)
    at = W.clone().requires_grad_()
    normed = weight[:, None] * F.layer_norm(k @ at, (V,), eps=1e-6) + bias[:, None]
    losses = rate * (normed - y).square().sum(-1) / 2
    (slope,) = torch.autograd.grad(losses.sum(), at, retain_graph=True)
    torch.testing.assert_close(after, W - step[:, :, -1, None, None] * slope)
    (so_far,) = torch.autograd.grad(losses[:, :, :4].sum(), at)
    torch.testing.assert_close(
        z[:, :, 3], torch.einsum("bhkv,bhk->bhv", W - step[:, :, 3, None, None] * so_far, q[:, :, 3])
    )
    assert not G.any()


def test_float32_stays_close_to_float64_whatever_autocast_says():
    x = [y.float() for y in inputs(100)]
    with torch.autocast("cpu", torch.bfloat16):
        z, (W, G, _) = ttt_linear(*x[:8], size=SIZE)
    assert {z.dtype, W.dtype, G.dtype} == {torch.float32}
    want, (moved, _, _) = ttt_linear(*x[:8], size=SIZE)
    torch.testing.assert_close((z, W), (want, moved))
    small = [0.3 * y if y.ndim == 4 else y for y in x]
    small[3] = 0.1 * small[3]
    assert_near_float64(form(ttt_linear), form(ttt_linear_naive), *small, limit=1e-3)


def test_no_size_is_refused():
    with pytest.raises(ValueError, match="ttt_linear: size is 0, expected 1 at least"):
        ttt_linear(*inputs(3)[:8], size=0)
    with pytest.raises(ValueError, match="titans_linear: size is 0, expected 1 at least"):
        titans_linear(*with_momentum(3)[:9], size=0)


def test_shapes_without_data():
    with torch.device("meta"):
        x = [torch.empty(y.shape) for y in inputs(20)]
        under_way = x[8], torch.empty(B, dtype=torch.long)
    for begun in (None, under_way):
        z, (W, G, count) = ttt_linear(*x[:8], begun, size=SIZE)
        assert (z.shape, W.shape, G.shape, count.shape) == ((B, H, 20, V), (B, H, K, V), (B, H, K, V), (B,))
        z, (M, S, W, count) = titans_linear(*x[:4], x[3], x[3], *x[5:8], begun and (x[8], x[8], begun[1]), size=SIZE)
        assert (z.shape, M.shape, S.shape, count.shape) == ((B, H, 20, V), (B, H, K, V), (B, H, K, V), (B,))
