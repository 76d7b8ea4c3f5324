"""The compiled sLSTM equals the loop as written: outputs, state, gradients, masks, resumed states."""

import pytest
import torch

from zoo.ops.slstm import slstm, slstm_naive

from .conftest import assert_near_float64, assert_same, padding

pytestmark = pytest.mark.usefixtures("form")


def inputs(T, H=2, B=3, d=5):
    torch.manual_seed(0)
    gates = [2 * torch.randn(H, B, T, d, dtype=torch.float64) for _ in range(4)]
    return [*gates, torch.randn(H, 4, d, d).double() / d**0.5, torch.randn(H, 4, d).double()]


def some_state(H=2, B=3, d=5):
    h, c, n = (torch.randn(B, H, d, dtype=torch.float64) for _ in range(3))
    return h, c, 1 + n.abs()


def compare(args, state=(), mask=None):
    """m has no gradient."""

    def all_of(op):
        def run(*x):
            h, (last, c, n, m) = op(*x[:6], (*x[6:], -0.5 * torch.ones_like(x[6])) if state else None, mask)
            return h, last, c, n, m.detach() + 0 * n

        return run

    assert_same(all_of(slstm), all_of(slstm_naive), *args, *state)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("T", [1, 13, 70])
def test_equals_the_loop(T, resumed, masked):
    compare(inputs(T), some_state() if resumed else (), padding(T) if masked else None)


@pytest.mark.parametrize("d", [1, 8, 24])
@pytest.mark.parametrize("B", [1, 2, 4])
def test_heads_and_batches_of_any_size(B, d):
    compare(inputs(5, B=B, d=d))


def test_holes_in_the_mask():
    mask = torch.tensor([[True, False, True, True], [False, True, False, True], [False, False, False, False]])
    compare(inputs(4), some_state(), mask)


def test_float32_against_float64():
    narrow = (x.float() for x in inputs(100, d=16))
    assert_near_float64(lambda *x: slstm(*x)[0], lambda *x: slstm_naive(*x)[0], *narrow, limit=1e-4)
