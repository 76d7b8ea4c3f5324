"""Banded attention: the naive form equals a loop over queries; the blocked form equals it, at a linear cost."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo.layers.banded_attention import Extra, Windows, attend, attend_naive
from zoo.ops.kernel_log import record_kernels

B, H, K, V = 2, 4, 3, 5


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("zoo.layers.banded_attention.LEAST", 1)


def draw(T, past=0, *, before, after, kv_heads=H, valid=False, bias=False, extra=False):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    S = past + T
    inputs = {"q": normal(B, H, T, K), "k": normal(B, kv_heads, S, K), "v": normal(B, kv_heads, S, V)}
    if valid:
        inputs["valid"] = torch.rand(B, S, generator=generator) < 0.5
    if bias:
        inputs["bias"] = normal(H, before + after + 1)
    if extra:
        inputs["extra"] = Extra(normal(B, kv_heads, 2, K), normal(B, kv_heads, 2, V), torch.tensor([[True, False]] * B))
    return inputs


def loop(q, k, v, *, before, after=0, valid=None, bias=None, extra=None):
    """Query by query, key by key."""
    T, S, shared = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    y = torch.zeros(B, H, T, V, dtype=q.dtype)
    for b in range(B):
        for h in range(H):
            g = h // shared
            for t in range(T):
                here, scores, values = t + S - T, [], []
                for s in range(max(0, here - before), min(S, here + after + 1)):
                    if valid is None or valid[b, s] or s == here:
                        shift = 0 if bias is None else bias[h, s - here + before]
                        scores.append(q[b, h, t] @ k[b, g, s] / math.sqrt(K) + shift)
                        values.append(v[b, g, s])
                for e in range(0 if extra is None else extra.k.shape[2]):
                    if extra.valid[b, e]:
                        scores.append(q[b, h, t] @ extra.k[b, g, e] / math.sqrt(K))
                        values.append(extra.v[b, g, e])
                y[b, h, t] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return y


def outputs_and_gradients(form, inputs, **band):
    y = form(**inputs, **band)
    leaves = [x for x in (*inputs.values(), *inputs.get("extra", ())) if torch.is_tensor(x) and x.requires_grad]
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return y, torch.autograd.grad((y * weight).sum(), leaves)


EVERYTHING = {"kv_heads": 2, "valid": True, "bias": True, "extra": True}


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize(("T", "past", "before", "after"), [(9, 0, 3, 0), (7, 2, 3, 2), (1, 3, 2, 0), (5, 0, 0, 1)])
def test_naive_equals_a_loop(T, past, before, after, options):
    inputs = draw(T, past, before=before, after=after, **options)
    want = outputs_and_gradients(loop, inputs, before=before, after=after)
    torch.testing.assert_close(outputs_and_gradients(attend_naive, inputs, before=before, after=after), want)


@pytest.mark.parametrize("options", [{}, {"valid": True}, {"bias": True}, EVERYTHING], ids=str)
@pytest.mark.parametrize("past", [0, 2, 9])
@pytest.mark.parametrize(("before", "after"), [(3, 0), (2, 2), (0, 0), (4, 1), (0, 3)])
@pytest.mark.parametrize("T", [16, 37])
def test_blocked_equals_naive(small_blocks, T, past, before, after, options):
    inputs = draw(T, past, before=before, after=after, **options)
    want = outputs_and_gradients(attend_naive, inputs, before=before, after=after)
    with record_kernels() as log:
        have = outputs_and_gradients(attend, inputs, before=before, after=after)
    assert log["local_attention"] == "blocked"
    torch.testing.assert_close(have, want)


@pytest.mark.parametrize(("T", "past", "before"), [(1, 3, 3), (1, 0, 5), (6, 0, 9), (8, 8, 2)])
def test_short_sequences_equal_naive(T, past, before):
    inputs = draw(T, past, before=before, after=0, **EVERYTHING)
    want = outputs_and_gradients(attend_naive, inputs, before=before)
    torch.testing.assert_close(outputs_and_gradients(attend, inputs, before=before), want)


@pytest.mark.parametrize(("T", "width", "size"), [(12, 4, 4), (13, 7, 3), (9, 9, 2), (11, 2, 3)])
def test_windows_equal_unfold(T, width, size):
    x = torch.randn(2, 3, T, 5, dtype=torch.float64, requires_grad=True)
    have = Windows.apply(x, width, size)
    want = x.unfold(2, width, size).permute(0, 2, 1, 4, 3).flatten(0, 1)
    assert torch.equal(have, want)
    weight = torch.randn_like(want)
    torch.testing.assert_close(*(torch.autograd.grad((y * weight).sum(), x)[0] for y in (have, want)))


def test_a_batch_of_windows_costs_linear_time():
    def cost(T):
        q, k, v = torch.zeros(3, 1, 1, T, 8, device="meta")
        with FlopCounterMode(display=False) as counter:
            attend(q, k, v, before=20, after=12)
        return counter.get_total_flops()

    assert cost(64 * 32) == 2 * cost(32 * 32)


def test_where_nothing_is_valid_a_query_sees_itself():
    inputs = draw(5, before=2, after=2) | {"valid": torch.zeros(B, 5, dtype=torch.bool)}
    torch.testing.assert_close(attend(**inputs, before=2, after=2), inputs["v"])
