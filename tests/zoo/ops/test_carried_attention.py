"""Attention to keys that later steps change: chunks equal the naive forms; what changing keys means."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops import attention
from zoo.ops.carried_attention import (
    path_attention,
    path_attention_naive,
    wall_attention,
    wall_attention_naive,
)

from .conftest import assert_near_float64, assert_same

B, H, G, K, V, S = 2, 4, 2, 5, 7, 9
OPS = {"path": (path_attention, path_attention_naive), "wall": (wall_attention, wall_attention_naive)}
CHUNK = "zoo.ops.carried_attention.chunked.CHUNK"
each = pytest.mark.parametrize("name", OPS)


def normal(*shape):
    return torch.randn(B, *shape, dtype=torch.float64)


def inputs(name, T, *, fade=False, padded=False, given=False):
    """q, k, v and what carries keys; the fade; which keys are valid; what came before."""
    torch.manual_seed(T)
    q, k, v, own = normal(H, T, K), normal(G, T, K), normal(G, T, V), H if name == "wall" else G
    carry = (
        [-normal(H, T, K).exp()] if name == "wall" else [F.normalize(normal(G, T, K), dim=-1), 2 * torch.rand(B, G, T)]
    )
    valid = torch.rand(B, 1, T) < 0.7 if padded else None
    past = torch.rand(B, 1, S) < 0.7 if padded else None
    state = {"k": normal(own, S, K), "v": normal(G, S, V), "valid": past, "fade": -normal(H, S).exp() if fade else None}
    return (
        [q, k, v, *(x.double() for x in carry), -normal(H, T).exp() if fade else None],
        valid,
        state if given else None,
    )


def flat(form, valid, state):
    """The form, whose state is given and returned as tensors."""

    def call(*tensors):
        given = tensors[len(tensors) - 3 :] if state else ()
        before = {**state, **dict(zip(("k", "v", "fade"), given, strict=True))} if state else None
        o, new = form(*tensors[: len(tensors) - len(given)], valid, before)
        return [o, *(x for x in (new["k"], new["v"], new["fade"]) if x is not None)]

    return call, [state["k"], state["v"], state["fade"]] if state else []


@each
@pytest.mark.parametrize("T", [1, 2, 15, 16, 37])
@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("fade", [False, True], ids=["", "fading"])
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("given", [False, True], ids=["fresh", "resumed"])
def test_chunks_equal_the_naive_form(monkeypatch, name, T, chunk, fade, padded, given):
    monkeypatch.setattr(CHUNK, chunk)
    tensors, valid, state = inputs(name, T, fade=fade, padded=padded, given=given)
    (fast, more), (naive, _) = (flat(form, valid, state) for form in OPS[name])
    assert_same(fast, naive, *tensors, *more, tolerance=1e-9)


@each
def test_pieces_equal_the_whole(monkeypatch, name):
    monkeypatch.setattr(CHUNK, 8)
    tensors, valid, _ = inputs(name, 37, fade=True, padded=True)
    whole, last = OPS[name][0](*tensors, valid)
    parts, state, start = [], None, 0
    for size in (1, 20, 16):
        piece = [x[:, :, start : start + size] for x in (*tensors, valid)]
        o, state = OPS[name][0](*piece, state)
        parts.append(o)
        start += size
    torch.testing.assert_close(torch.cat(parts, dim=2), whole)
    torch.testing.assert_close(state, last)


@each
def test_a_fade_that_is_not_given_is_none(name):
    """Neither of the state, nor of the steps."""
    tensors, _, state = inputs(name, 20, fade=True, given=True)
    for without in ({**state, "fade": None}, {**state, "fade": torch.zeros_like(state["fade"])}):
        o, _ = OPS[name][0](*tensors, state=without)
        torch.testing.assert_close(o, OPS[name][1](*tensors, state=without)[0])
    *rest, fade = tensors
    got, want = (OPS[name][0](*rest, f, state=state) for f in (None, torch.zeros_like(fade)))
    torch.testing.assert_close(got, want)


def test_keys_that_nothing_changes_are_those_of_attention():
    (q, k, v, w, beta, _), _, _ = inputs("path", 37)
    want = attention.attend(q, k, v, causal=True)
    torch.testing.assert_close(path_attention(q, k, v, w, torch.zeros_like(beta))[0], want)
    torch.testing.assert_close(wall_attention(q, k, v, torch.zeros_like(q))[0], want)


def test_the_fade_is_a_bias_of_scores():
    (q, k, v, w, beta, fade), _, _ = inputs("path", 37, fade=True)
    total = fade.cumsum(-1)
    want = attention.attend(q, k, v, causal=True, bias=total[..., :, None] - total[..., None, :])
    torch.testing.assert_close(path_attention(q, k, v, w, torch.zeros_like(beta), fade)[0], want)


def test_beta_of_two_reflects_keys_of_earlier_steps_only():
    """k_0 along w is turned round by the second step, k_1 by no step; a third one turns both."""
    w = F.normalize(torch.randn(1, 1, 1, K, dtype=torch.float64), dim=-1).expand(-1, -1, 3, -1)
    _, new = path_attention(w, w, w, w, torch.full((1, 1, 3), 2.0, dtype=torch.float64))
    torch.testing.assert_close(new["k"], w * torch.tensor([1.0, -1.0, 1.0]).double()[:, None])


@each
def test_a_key_that_is_not_valid_is_seen_by_its_own_query_alone(name):
    tensors, valid, _ = inputs(name, 37, padded=True)
    (_, k, v), gone = tensors[:3], ~valid[0, 0]
    before, _ = OPS[name][0](*tensors, valid)
    tensors[1], tensors[2] = (x.clone() for x in (k, v))
    tensors[1][0, :, gone] += 1
    tensors[2][0, :, gone] += 1
    after, _ = OPS[name][0](*tensors, valid)
    torch.testing.assert_close(after[0, :, ~gone], before[0, :, ~gone], rtol=0, atol=0)
    assert not torch.isclose(after[0, :, gone], before[0, :, gone]).all(-1).any()


def test_total_forgetting_is_finite_and_exact():
    (q, k, v, g, _), _, _ = inputs("wall", 37)
    g[:, :, 5] = -torch.inf
    assert_same(lambda *x: wall_attention(*x)[0], lambda *x: wall_attention_naive(*x)[0], q, k, v, g, tolerance=1e-9)


@each
def test_bfloat16_stays_close_to_float64(name):
    tensors, _, _ = inputs(name, 100)
    half = [x.bfloat16() if i < 3 else x.float() for i, x in enumerate(tensors[:-1])]
    o, new = OPS[name][0](*half)
    assert (o.dtype, new["k"].dtype, new["v"].dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    fast, naive = (lambda *x, form=form: form(*x)[0] for form in OPS[name])
    assert_near_float64(fast, naive, *half, limit=0.03)


@each
@pytest.mark.parametrize("T", [1, 9])
def test_autocast_rounds_nothing_of_float32(name, T):
    tensors, _, state = inputs(name, T, fade=True, given=True)
    exact, before = [x.float() for x in tensors], {key: x if x is None else x.float() for key, x in state.items()}
    want = OPS[name][0](*exact, state=before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(OPS[name][0](*exact, state=before), want, rtol=0, atol=0)


@each
def test_shapes_without_data(name):
    with torch.device("meta"):
        q, k, beta = torch.empty(B, H, 20, K), torch.empty(B, G, 20, K), torch.empty(B, G, 20)
    o, new = OPS[name][0](q, k, k, *([q] if name == "wall" else [k, beta]))
    assert o.shape == q.shape
    assert new["k"].shape == (q if name == "wall" else k).shape
