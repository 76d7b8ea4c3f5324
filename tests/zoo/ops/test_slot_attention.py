"""Gated slot attention: chunks equal the recurrence, in outputs, slots and gradients; what slots are."""

import pytest
import torch

from zoo.ops.slot_attention import slot_attention, slot_attention_naive

from .conftest import assert_near_float64, assert_same

B, H, K, V, M = 2, 3, 5, 7, 4
STATES = pytest.mark.parametrize("given", [False, True], ids=["fresh", "resumed"])


def normal(*shape, dtype=torch.float64):
    return torch.randn(B, H, *shape, dtype=dtype)


def inputs(T, decay="mild", given=False):
    """q, k, v, the weights of writing and log decays; and slots to continue from."""
    torch.manual_seed(T)
    g = -torch.rand(B, H, T, M).double() if decay == "mild" else -30 * normal(T, M).exp()
    state = [normal(K, M), normal(M, V)] if given else [None, None]
    return [normal(T, K), normal(T, K), normal(T, V), -torch.expm1(g), g, *state]


def flat(op):
    """A form of tensors alone."""

    def run(*x):
        o, slots = op(*x[:5], None if x[5] is None else x[5:])
        return o, *slots

    return run


@STATES
@pytest.mark.parametrize("T", [1, 15, 16, 75])
@pytest.mark.parametrize("decay", ["mild", "strong"])
@pytest.mark.parametrize("chunk", [8, 64])
def test_chunks_equal_the_recurrence(monkeypatch, T, given, decay, chunk):
    monkeypatch.setattr("zoo.ops.slot_attention.chunked.CHUNK", chunk)
    assert_same(flat(slot_attention), flat(slot_attention_naive), *inputs(T, decay, given), tolerance=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_inputs_against_float64(dtype, form):
    """Outputs come in the dtype of v; decays and slots stay float32."""
    q, k, v, w, g, *_ = inputs(150)
    narrow = [*(x.to(dtype) for x in (q, k, v)), w.float(), g.float(), None, None]
    o, keys, values = flat(slot_attention)(*narrow)
    assert [x.dtype for x in (o, keys, values)] == [dtype, torch.float32, torch.float32]
    limit = 1e-5 if dtype is torch.float32 else 2e-2
    assert_near_float64(flat(slot_attention), flat(slot_attention_naive), *narrow, limit=limit)


def test_pieces_one_after_another():
    given = inputs(70)[:5]
    whole, slots = slot_attention(*given)
    pieces, state = [], None
    for at in (slice(0, 1), slice(1, 40), slice(40, 70)):
        o, state = slot_attention(*(x[:, :, at] for x in given), state)
        pieces.append(o)
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole)
    torch.testing.assert_close(state, slots)


def test_a_slot_that_is_not_written_keeps_all_it_holds():
    """With w = 0 and a = 1 to the last bit; total forgetting leaves the present step alone."""
    q, k, v, w, g, *slots = inputs(20, given=True)
    w[..., 1], g[..., 1] = 0, 0
    w[:, :, -1, 2], g[:, :, -1, 2] = 1, -torch.inf
    assert_same(flat(slot_attention), flat(slot_attention_naive), q, k, v, w, g, *slots, tolerance=1e-9)
    _, (keys, values) = slot_attention(q, k, v, w, g, tuple(slots))
    torch.testing.assert_close(keys[..., 1], slots[0][..., 1], rtol=0, atol=0)
    torch.testing.assert_close(values[:, :, 1], slots[1][:, :, 1], rtol=0, atol=0)
    torch.testing.assert_close(keys[..., 2], k[:, :, -1])
    torch.testing.assert_close(values[:, :, 2], v[:, :, -1])


def test_with_a_slot_for_each_step_it_is_softmax_attention():
    T = 12
    q, k, v = normal(T, K), normal(T, K), normal(T, V)
    own = torch.eye(T, dtype=torch.float64).expand(B, H, T, T)
    o, _ = slot_attention(q, k, v, own, torch.zeros_like(own))
    p = (q @ k.mT).tril().softmax(-1)  # the slots of steps to come are empty: their keys are 0, as are their values
    torch.testing.assert_close(o, p.tril() @ v)


def test_shapes_without_data():
    with torch.device("meta"):
        q, v, w = torch.empty(B, H, 20, K), torch.empty(B, H, 20, V), torch.empty(B, H, 20, M)
    o, (keys, values) = slot_attention(q, q, v, w, w)
    assert (o.shape, keys.shape, values.shape) == ((B, H, 20, V), (B, H, K, M), (B, H, M, V))
