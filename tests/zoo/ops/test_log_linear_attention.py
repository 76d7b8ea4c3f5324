"""Log-linear attention and delta rule: chunks equal the recurrence, that the sum over all pairs; what levels are."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops.delta_rule import delta_rule_naive
from zoo.ops.linear_attention import recurrent
from zoo.ops.log_linear_attention import (
    levels_of,
    log_linear_attention,
    log_linear_attention_naive,
    log_linear_delta_rule,
    log_linear_delta_rule_naive,
)

from .conftest import assert_near_float64, assert_same

B, G, H, K, V = 2, 2, 4, 5, 3
ATTENTION = log_linear_attention, log_linear_attention_naive
DELTA = log_linear_delta_rule, log_linear_delta_rule_naive
BOTH = pytest.mark.parametrize("forms", [ATTENTION, DELTA], ids=["attention", "delta rule"])


def normal(*shape, dtype=torch.float64):
    return torch.randn(B, *shape, dtype=dtype)


def inputs(T, levels=None, decay=0.2, forms=ATTENTION):
    torch.manual_seed(T)
    g, scales = -decay * torch.rand(B, H, T).double(), normal(H, T, levels or levels_of(T))
    if forms is ATTENTION:
        return [normal(G, T, K), normal(G, T, K), normal(H, T, V), g, scales]
    k, beta = F.normalize(normal(H, T, K), dim=-1), 2 * torch.rand(B, H, T).double()
    return [normal(H, T, K), k, normal(H, T, V), beta, g, scales]


def empty(levels):
    return torch.zeros(B, H, levels - 1, K, V).double(), torch.zeros(B, dtype=torch.long)


def by_pairs(q, k, v, *rest):
    """The sum over all pairs, as it is defined: v_s reaches q_t through k_s and the matrix of each step between."""
    *beta, g, scales = rest
    q, k = (x.repeat_interleave(H // x.shape[1], dim=1) for x in (q, k))
    along = beta[0][..., None] * k if beta else k
    steps = torch.eye(K).expand(*g.shape, K, K) - (along[..., :, None] * k[..., None, :] if beta else 0)
    rows = []
    for t in range(q.shape[2]):
        row, reader = torch.zeros_like(v[:, :, 0]), q[:, :, t]
        for s in range(t, -1, -1):
            level = min((t ^ s).bit_length(), scales.shape[-1] - 1)
            row = row + (scales[:, :, t, level] * (reader * along[:, :, s]).sum(-1))[..., None] * v[:, :, s]
            reader = g[:, :, s, None].exp() * (reader[..., None, :] @ steps[:, :, s].to(reader.dtype))[..., 0, :]
        rows.append(row)
    return torch.stack(rows, dim=2)


def resumed(op, mask=None):
    """A form of tensors alone, which continues from no steps; outputs in padding are zeros."""

    def run(*x):
        o, (S, n) = op(*x, empty(x[-1].shape[-1]), mask)
        assert n.tolist() == ([x[0].shape[2]] * B if mask is None else mask.sum(1).tolist())
        return o if mask is None else o * mask[:, None, :, None], S

    return run


@BOTH
@pytest.mark.parametrize("levels", [None, 4], ids=["every level", "four"])
def test_every_form_is_the_sum_over_pairs(forms, levels):
    given = inputs(37, levels, forms=forms)
    want = by_pairs(*given)
    for op in forms:
        torch.testing.assert_close(op(*given)[0], want)


@BOTH
@pytest.mark.parametrize("T", [1, 15, 16, 75, 137])
@pytest.mark.parametrize("levels", [None, 5], ids=["every level", "five"])
@pytest.mark.parametrize(("chunk", "decay"), [(8, 0.2), (64, 0.2), (64, 30.0)])
def test_chunks_equal_the_recurrence(monkeypatch, forms, T, levels, chunk, decay):
    for module in ("chunked", "delta_rule"):
        monkeypatch.setattr(f"zoo.ops.log_linear_attention.{module}.CHUNK", chunk)
    given, mask = inputs(T, levels, decay, forms), torch.arange(T) < torch.tensor([T, (T + 1) // 2])[:, None]
    assert_same(*(lambda *x, op=op: op(*x)[0] for op in forms), *given, tolerance=1e-9)
    assert_same(*(resumed(op) for op in forms), *given, tolerance=1e-9)
    assert_same(*(resumed(op, mask) for op in forms), *given, tolerance=1e-9)


@BOTH
def test_pieces_one_after_another(forms):
    """Rows of 70 and of 63 steps, which then go on by 8: where they cut blocks, in each its own."""
    op = forms[0]
    given, mask = inputs(78, forms=forms), torch.arange(70) < torch.tensor([70, 63])[:, None]
    more = [torch.cat([x[0, :, 70:][None], x[1, :, 63:71][None]]) for x in given]
    _, state = op(*(x[:, :, :70] for x in given), empty(levels_of(78)), mask)
    pieces = []
    for at in (slice(0, 1), slice(1, 8)):
        o, state = op(*(x[:, :, at] for x in more), state)
        pieces.append(o)
    want = by_pairs(*given)
    torch.testing.assert_close(torch.cat(pieces, dim=2), torch.stack([want[0, :, 70:], want[1, :, 63:71]]))
    assert state[1].tolist() == [78, 71]


@BOTH
def test_a_state_for_each_bit_of_the_count(forms):
    given = inputs(2**6 - 1 + 3, forms=forms)  # 66 = 1000010 in binary
    _, (S, n) = forms[0](*given, empty(levels_of(66)))
    assert [bool(S[:, :, b].any()) for b in range(S.shape[2])] == [bool(66 >> b & 1) for b in range(S.shape[2])]
    assert n.tolist() == [66, 66]


def test_equal_weights_are_linear_attention():
    *given, scales = inputs(75)
    o, (S, _) = log_linear_attention(*given, torch.ones_like(scales), empty(scales.shape[-1]))
    want, state = recurrent(*given)
    torch.testing.assert_close(o, want)
    torch.testing.assert_close(S.sum(2), state)


def test_equal_weights_are_the_delta_rule():
    *given, scales = inputs(75, forms=DELTA)
    o, (S, _) = log_linear_delta_rule(*given, torch.ones_like(scales), empty(scales.shape[-1]))
    want, state = delta_rule_naive(*given)
    torch.testing.assert_close(o, want)
    torch.testing.assert_close(S.sum(2), state)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_inputs_against_float64(forms, dtype):
    q, k, v, *rest = inputs(150, forms=forms)
    narrow = *(x.to(dtype) for x in (q, k, v)), *(x.float() for x in rest)
    assert forms[0](*narrow)[0].dtype is dtype
    outputs = (lambda *x, op=op: op(*x)[0] for op in forms)
    assert_near_float64(*outputs, *narrow, limit=1e-5 if dtype is torch.float32 else 2e-2)


@BOTH
def test_shapes_without_data(forms):
    with torch.device("meta"):
        o, (S, n) = forms[0](*(torch.empty_like(x, device="meta") for x in inputs(20, 6, forms=forms)), empty(6))
    assert (o.shape, S.shape, n.shape) == ((B, H, 20, V), (B, H, 5, K, V), (B,))
