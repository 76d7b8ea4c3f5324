"""The delta rule with softmax attention as its memory: chunks equal the naive form; what it stores."""

import pytest
import torch

from zoo.ops import attention, flops
from zoo.ops.softmax_delta import softmax_delta, softmax_delta_naive

from .conftest import assert_near_float64, assert_same

B, H, K, V, PAST = 2, 3, 5, 7, 9


def inputs(T, *, padded=False, given=False):
    """q, k, v and β; which keys are valid; u of earlier steps."""
    torch.manual_seed(T)
    S = T + (PAST if given else 0)
    q, k, v, beta = (torch.randn(B, H, *shape, dtype=torch.float64) for shape in ((T, K), (S, K), (T, V), (T,)))
    valid = torch.rand(B, 1, S) < 0.5 if padded else None
    return [q, k, v, beta], valid, [torch.randn(B, H, PAST, V, dtype=torch.float64)] if given else []


@pytest.mark.parametrize("T", [1, 15, 16, 37])
@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("given", [False, True], ids=["fresh", "resumed"])
def test_chunks_equal_the_naive_form(monkeypatch, T, chunk, padded, given):
    monkeypatch.setattr("zoo.ops.softmax_delta.chunked.CHUNK", chunk)
    tensors, valid, past = inputs(T, padded=padded, given=given)
    forms = (lambda *x, op=op: op(*x[:4], valid, *x[4:]) for op in (softmax_delta, softmax_delta_naive))
    assert_same(*forms, *tensors, *past, tolerance=1e-9)


def test_a_value_and_what_the_memory_held_make_the_value_again():
    """v = u + β · (attention of each query to u of the steps before it)."""
    (q, k, v, beta), _, _ = inputs(37)
    u, before = softmax_delta(q, k, v, beta), torch.ones(37, 37).tril(-1).bool()
    held = attention.attend_naive(q, k, u, visible=before)
    torch.testing.assert_close(u + beta[..., None] * held, v)


def test_a_key_that_comes_again_stores_the_difference():
    """Of sharp keys with β = 1, so that reading all that was stored for it, in sum, gives its last value."""
    keys = 100 * torch.eye(3, K, dtype=torch.float64)[[0, 1, 0, 2, 1, 0]].expand(1, 1, -1, -1)
    v = torch.randn(1, 1, 6, V, dtype=torch.float64)
    u = softmax_delta(keys, keys, v, torch.ones(1, 1, 6, dtype=torch.float64))[0, 0]
    torch.testing.assert_close(u[[0, 1]], v[0, 0, [0, 1]] - torch.stack([torch.zeros(V).double(), u[0]]))
    torch.testing.assert_close(u[2], v[0, 0, 2] - u[0])  # the step's own key is not among those it reads
    torch.testing.assert_close(u[5], v[0, 0, 5] - (u[0] + u[2]) / 2)  # softmax shares its weight among equals


def test_bfloat16_stays_close_to_float64():
    half = [x.bfloat16() for x in inputs(100)[0][:3]] + [inputs(100)[0][3].float()]
    assert softmax_delta(*half).dtype == torch.float32
    assert_near_float64(softmax_delta, softmax_delta_naive, *half, limit=0.01)


def test_the_solve_is_counted(monkeypatch):
    monkeypatch.setattr("zoo.ops.softmax_delta.chunked.CHUNK", 16)
    tensors = [x.requires_grad_() for x in inputs(32)[0]]
    with flops.Counter() as counter:
        u = softmax_delta(*tensors)
        assert counter.total == B * H * 2 * 16 * 16 * V
        u.sum().backward()
    assert counter.total == 2 * B * H * 2 * 16 * 16 * V


def test_earlier_steps_that_do_not_fit_are_refused():
    (q, k, v, beta), _, past = inputs(8, given=True)
    with pytest.raises(ValueError, match="softmax_delta: 9 keys before the first query, u has 0"):
        softmax_delta(q, k, v, beta)
    with pytest.raises(ValueError, match="softmax_delta: 0 keys before the first query, u has 9"):
        softmax_delta(q, k[:, :, PAST:], v, beta, None, *past)
