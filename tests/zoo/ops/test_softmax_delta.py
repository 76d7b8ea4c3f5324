"""The delta rule with softmax attention as its memory: chunks equal the naive form; what it stores."""

import pytest
import torch

from zoo.ops import attention, flops
from zoo.ops.softmax_delta import softmax_delta, softmax_delta_naive

from .conftest import assert_near_float64, assert_same

B, H, K, V, PAST = 2, 3, 5, 7, 9


def inputs(T, *, padded=False, given=False):
    """q, k, v and β; which keys are valid; what was stored before."""
    torch.manual_seed(T)
    q, k, v, beta = (torch.randn(B, H, *shape, dtype=torch.float64) for shape in ((T, K), (T, K), (T, V), (T,)))
    valid, past = (torch.rand(B, 1, n) < 0.5 if padded else None for n in (T, PAST))
    keys, u = (torch.randn(B, H, PAST, n, dtype=torch.float64) for n in (K, V))
    return [q, k, v, beta], valid, {"k": keys, "u": u, "valid": past} if given else None


@pytest.mark.parametrize("T", [1, 15, 16, 37])
@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("given", [False, True], ids=["fresh", "resumed"])
def test_chunks_equal_the_naive_form(monkeypatch, T, chunk, padded, given):
    monkeypatch.setattr("zoo.ops.softmax_delta.chunked.CHUNK", chunk)
    tensors, valid, state = inputs(T, padded=padded, given=given)

    def form(op):
        def call(q, k, v, beta, *past):
            new = op(q, k, v, beta, valid, {**state, "k": past[0], "u": past[1]} if past else None)
            assert new["k"].shape[2] == new["u"].shape[2]
            return new["u"]

        return call

    past = [state["k"], state["u"]] if given else []
    assert_same(form(softmax_delta), form(softmax_delta_naive), *tensors, *past, tolerance=1e-9)


@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
def test_pieces_equal_the_whole(padded):
    tensors, valid, state = inputs(37, padded=padded, given=True)
    whole, first = softmax_delta(*tensors, valid, state), 0
    for size in (1, 20, 16):
        piece = [None if x is None else x[:, :, first : first + size] for x in (*tensors, valid)]
        state, first = softmax_delta(*piece, state), first + size
    torch.testing.assert_close(state, whole)


def test_a_value_and_what_the_memory_held_make_the_value_again():
    """v = u + β · (attention of each query to u of the steps before it)."""
    (q, k, v, beta), _, _ = inputs(37)
    u, before = softmax_delta(q, k, v, beta)["u"], torch.ones(37, 37).tril(-1).bool()
    held = attention.attend_naive(q, k, u, visible=before)
    torch.testing.assert_close(u + beta[..., None] * held, v)


def test_a_key_that_comes_again_stores_the_difference():
    """Of sharp keys with β = 1, so that reading all that was stored for it, in sum, gives its last value."""
    keys = 100 * torch.eye(3, K, dtype=torch.float64)[[0, 1, 0, 2, 1, 0]].expand(1, 1, -1, -1)
    v = torch.randn(1, 1, 6, V, dtype=torch.float64)
    u = softmax_delta(keys, keys, v, torch.ones(1, 1, 6, dtype=torch.float64))["u"][0, 0]
    torch.testing.assert_close(u[[0, 1]], v[0, 0, [0, 1]] - torch.stack([torch.zeros(V).double(), u[0]]))
    torch.testing.assert_close(u[2], v[0, 0, 2] - u[0])  # the step's own key is not among those it reads
    torch.testing.assert_close(u[5], v[0, 0, 5] - (u[0] + u[2]) / 2)  # softmax shares its weight among equals


def test_bfloat16_stays_close_to_float64():
    half = [x.bfloat16() for x in inputs(100)[0][:3]] + [inputs(100)[0][3].float()]
    forms = [lambda *x, op=op: op(*x)["u"] for op in (softmax_delta, softmax_delta_naive)]
    assert forms[0](*half).dtype == torch.float32
    assert_near_float64(*forms, *half, limit=0.01)


def test_the_solve_is_counted(monkeypatch):
    monkeypatch.setattr("zoo.ops.softmax_delta.chunked.CHUNK", 16)
    tensors = [x.requires_grad_() for x in inputs(32)[0]]
    with flops.Counter() as counter:
        u = softmax_delta(*tensors)["u"]
        assert counter.total == B * H * 2 * 16 * 16 * V
        u.sum().backward()
    assert counter.total == 2 * B * H * 2 * 16 * 16 * V
