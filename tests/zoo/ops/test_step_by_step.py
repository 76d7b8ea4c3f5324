"""A recurrence span by span is the recurrence."""

from functools import partial

import pytest
import torch

from zoo.ops.linear_attention import recurrent
from zoo.ops.step_by_step import SPAN, finite, step_by_step

from .conftest import differentiated


@pytest.mark.parametrize("T", [2, SPAN, 2 * SPAN + 7])
@pytest.mark.parametrize("fresh", [False, True])
def test_spans_are_the_whole(T, fresh):
    torch.manual_seed(0)
    q, k, v, g, S = (torch.randn(s, dtype=torch.float64) for s in [(1, 2, T, 3)] * 3 + [(1, 2, T), (1, 2, 3, 3)])
    inputs = (q, k, v, -g.abs(), *([] if fresh else [S]))
    have = differentiated(
        lambda *x: step_by_step(partial(recurrent, bonus=None), x[:4], None if fresh else x[4]), *inputs
    )
    torch.testing.assert_close(have, differentiated(recurrent, *inputs), rtol=1e-12, atol=1e-12)


def test_finite():
    x = torch.tensor([6e4, 6e4], dtype=torch.float16)  # whose sum is not
    assert finite(x, torch.empty(0), torch.empty(2, device="meta"))
    for planted in (float("nan"), float("inf"), -float("inf")):
        assert not finite(x, torch.tensor([1, planted]))
    assert not finite(torch.tensor([float("inf"), -float("inf")]))
