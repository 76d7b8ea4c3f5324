"""Log-linear attention: chunks equal the recurrence, the recurrence the sum over all pairs; what levels are."""

import pytest
import torch

from zoo.ops.linear_attention import recurrent
from zoo.ops.log_linear_attention import levels_of, log_linear_attention, log_linear_attention_naive

from .conftest import assert_near_float64, assert_same

B, G, H, K, V = 2, 2, 4, 5, 3


def normal(*shape, dtype=torch.float64):
    return torch.randn(B, *shape, dtype=dtype)


def inputs(T, levels=None, decay=0.2):
    torch.manual_seed(T)
    g = -decay * torch.rand(B, H, T).double()
    return [normal(G, T, K), normal(G, T, K), normal(H, T, V), g, normal(H, T, levels or levels_of(T))]


def empty(levels):
    return torch.zeros(B, H, levels - 1, K, V).double(), torch.zeros(B, dtype=torch.long)


def by_pairs(q, k, v, g, scales):
    """The sum over all pairs, as it is defined."""
    q, k = (x.repeat_interleave(H // G, dim=1) for x in (q, k))
    rows = []
    for t in range(q.shape[2]):
        row = torch.zeros_like(v[:, :, 0])
        for s in range(t + 1):
            level = min((t ^ s).bit_length(), scales.shape[-1] - 1)
            decay = g[:, :, s + 1 : t + 1].sum(-1).exp()
            row = row + (scales[:, :, t, level] * decay * (q[:, :, t] * k[:, :, s]).sum(-1))[..., None] * v[:, :, s]
        rows.append(row)
    return torch.stack(rows, dim=2)


def resumed(op, mask=None):
    """A form of tensors alone, which continues from no steps; outputs in padding are zeros."""

    def run(*x):
        o, (S, n) = op(*x, empty(x[-1].shape[-1]), mask)
        assert n.tolist() == ([x[0].shape[2]] * B if mask is None else mask.sum(1).tolist())
        return o if mask is None else o * mask[:, None, :, None], S

    return run


@pytest.mark.parametrize("levels", [None, 4], ids=["every level", "four"])
def test_every_form_is_the_sum_over_pairs(levels):
    given = inputs(37, levels)
    want = by_pairs(*given)
    for op in (log_linear_attention, log_linear_attention_naive):
        torch.testing.assert_close(op(*given)[0], want)


@pytest.mark.parametrize("T", [1, 15, 16, 75, 137])
@pytest.mark.parametrize("levels", [None, 5], ids=["every level", "five"])
@pytest.mark.parametrize(("chunk", "decay"), [(8, 0.2), (64, 0.2), (64, 30.0)])
def test_chunks_equal_the_recurrence(monkeypatch, T, levels, chunk, decay):
    monkeypatch.setattr("zoo.ops.log_linear_attention.chunked.CHUNK", chunk)
    given, mask = inputs(T, levels, decay), torch.arange(T) < torch.tensor([T, (T + 1) // 2])[:, None]
    forms = log_linear_attention, log_linear_attention_naive
    assert_same(*(lambda *x, op=op: op(*x)[0] for op in forms), *given, tolerance=1e-9)
    assert_same(*(resumed(op) for op in forms), *given, tolerance=1e-9)
    assert_same(*(resumed(op, mask) for op in forms), *given, tolerance=1e-9)


def test_pieces_one_after_another():
    """Rows of 70 and of 63 steps, which then go on by 8: where they cut blocks, in each its own."""
    given, mask = inputs(78), torch.arange(70) < torch.tensor([70, 63])[:, None]
    more = [torch.cat([x[0, :, 70:][None], x[1, :, 63:71][None]]) for x in given]
    _, state = log_linear_attention(*(x[:, :, :70] for x in given), empty(levels_of(78)), mask)
    pieces = []
    for at in (slice(0, 1), slice(1, 8)):
        o, state = log_linear_attention(*(x[:, :, at] for x in more), state)
        pieces.append(o)
    want = by_pairs(*given)
    torch.testing.assert_close(torch.cat(pieces, dim=2), torch.stack([want[0, :, 70:], want[1, :, 63:71]]))
    assert state[1].tolist() == [78, 71]


def test_a_state_for_each_bit_of_the_count():
    given = inputs(2**6 - 1 + 3)  # 66 = 1000010 in binary
    _, (S, n) = log_linear_attention(*given, empty(levels_of(66)))
    assert [bool(S[:, :, b].any()) for b in range(S.shape[2])] == [bool(66 >> b & 1) for b in range(S.shape[2])]
    assert n.tolist() == [66, 66]


def test_equal_weights_are_linear_attention():
    *given, scales = inputs(75)
    o, (S, _) = log_linear_attention(*given, torch.ones_like(scales), empty(scales.shape[-1]))
    want, state = recurrent(*given)
    torch.testing.assert_close(o, want)
    torch.testing.assert_close(S.sum(2), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_inputs_against_float64(dtype):
    q, k, v, g, scales = inputs(150)
    narrow = *(x.to(dtype) for x in (q, k, v)), g.float(), scales.float()
    assert log_linear_attention(*narrow)[0].dtype is dtype
    forms = (lambda *x, op=op: op(*x)[0] for op in (log_linear_attention, log_linear_attention_naive))
    assert_near_float64(*forms, *narrow, limit=1e-5 if dtype is torch.float32 else 2e-2)


def test_shapes_without_data():
    with torch.device("meta"):
        q, v, g, scales = normal(G, 20, K), normal(H, 20, V), normal(H, 20), normal(H, 20, 6)
        o, (S, n) = log_linear_attention(q, q, v, g, scales, empty(6))
    assert (o.shape, S.shape, n.shape) == ((B, H, 20, V), (B, H, 5, K, V), (B,))
