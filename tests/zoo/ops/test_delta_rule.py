"""Delta rules: the chunked forms equal the naive ones, in outputs, state and gradients; what they mean."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from zoo.ops import flops, forms
from zoo.ops.delta_rule import delta_rule, delta_rule_naive, dplr, dplr_naive
from zoo.ops.linear_attention import recurrent

from .conftest import assert_near_float64, assert_same

B, H, K, V = 2, 3, 5, 7
LENGTHS = pytest.mark.parametrize("T", [1, 15, 16, 75])
STATES = pytest.mark.parametrize("given", [False, True], ids=["fresh", "resumed"])


def normal(*shape, dtype=torch.float64):
    return torch.randn(B, H, *shape, dtype=dtype)


def delta_inputs(T, decay, given):
    torch.manual_seed(T)
    log_decay = {"none": None, "mild": -torch.rand(B, H, T).double(), "strong": -30 * normal(T).exp()}[decay]
    beta, state = 2 * normal(T).sigmoid(), normal(K, V) if given else None
    return [normal(T, K), F.normalize(normal(T, K), dim=-1), normal(T, V), beta, log_decay, state]


def dplr_inputs(T, decay, given):
    """As RWKV-7 has them: a = −κ̂, b = κ̂ ⊙ rate, decay ≥ e^{−e^{−½}}; or any decay."""
    torch.manual_seed(T)
    key = F.normalize(normal(T, K), dim=-1)
    log_decay = -(0.6065 * normal(T, K).sigmoid() if decay == "rwkv7" else 20 * normal(T, K).exp())
    state = normal(K, V) if given else None
    return [normal(T, K), normal(T, K), normal(T, V), -key, key * normal(T, K).sigmoid(), log_decay, state]


@LENGTHS
@STATES
@pytest.mark.parametrize("decay", ["none", "mild", "strong"])
@pytest.mark.parametrize("chunk", [8, 64])
def test_delta_rule_in_chunks_equals_the_naive_form(monkeypatch, T, given, decay, chunk):
    monkeypatch.setattr("zoo.ops.delta_rule.chunked.CHUNK", chunk)
    assert_same(delta_rule, delta_rule_naive, *delta_inputs(T, decay, given), tolerance=1e-9)


@LENGTHS
@STATES
@pytest.mark.parametrize(("decay", "floor"), [("rwkv7", -0.6066), ("rwkv7", None), ("any", None)])
def test_dplr_in_chunks_equals_the_naive_form(T, given, decay, floor, form):
    assert_same(lambda *x: dplr(*x, floor=floor), dplr_naive, *dplr_inputs(T, decay, given), tolerance=1e-9)


def test_dplr_contains_the_delta_rule_and_gated_linear_attention():
    q, k, v, beta, log_decay, S = delta_inputs(9, "mild", True)
    per_channel = log_decay[..., None].expand(-1, -1, -1, K)
    bk = beta[..., None] * k
    low_rank = dplr(q, bk, v, -k * log_decay.exp()[..., None], bk, per_channel, S)
    torch.testing.assert_close(low_rank, delta_rule(q, k, v, beta, log_decay, S))
    plain = dplr(q, k, v, torch.zeros_like(k), torch.zeros_like(k), per_channel, S)
    torch.testing.assert_close(plain, recurrent(q, k, v, log_decay, S))


def test_a_written_value_is_recalled_exactly():
    """β = 1 and orthonormal keys: S holds each pair; writing a key again replaces its value and touches no other."""
    torch.manual_seed(0)
    k = torch.linalg.qr(normal(K, K))[0]
    v, one = normal(K, V), torch.ones(B, H, K, dtype=torch.float64)
    _, S = delta_rule(k, k, v, one)
    torch.testing.assert_close(k @ S, v)
    new = normal(1, V)
    _, S = delta_rule(k[:, :, :1], k[:, :, :1], new, one[:, :, :1], state=S)
    torch.testing.assert_close(k @ S, torch.cat([new, v[:, :, 1:]], dim=2))


def test_beta_of_two_reflects():
    """I − 2kkᵀ has eigenvalue −1: two writes of nothing at β = 2 restore the state, one negates what k held."""
    torch.manual_seed(0)
    k = F.normalize(normal(1, K), dim=-1).expand(-1, -1, 2, -1)
    S, nothing, two = normal(K, V), torch.zeros(B, H, 2, V).double(), torch.full((B, H, 2), 2.0).double()
    o, after = delta_rule(k, k, nothing, two, state=S)
    torch.testing.assert_close(o[:, :, 0], -(k[:, :, :1] @ S).squeeze(2))
    torch.testing.assert_close(after, S)


def test_empty_steps_keep_the_state(form):
    q, k, v, beta, _, S = delta_inputs(20, "none", True)
    zero = torch.zeros_like(beta)
    torch.testing.assert_close(delta_rule(q, k, v, zero, zero, S)[1], S, rtol=0, atol=0)
    nothing = torch.zeros_like(k)
    for floor in (None, -1.0):
        torch.testing.assert_close(dplr(q, nothing, v, nothing, k, nothing, S, floor=floor)[1], S, rtol=0, atol=0)


def test_total_forgetting_is_finite_and_exact(form):
    q, k, v, beta, g, S = delta_inputs(20, "mild", True)
    g[:, :, 5] = -torch.inf
    assert_same(delta_rule, delta_rule_naive, q, k, v, beta, g, S, tolerance=1e-9)
    a = dplr_inputs(20, "any", True)
    a[5][:, :, 5] = -torch.inf
    assert_same(dplr, dplr_naive, *a, tolerance=1e-9)


def test_any_decay_is_computed_in_chunks(monkeypatch):
    """Without a floor, total forgetting included, no step follows another one by one."""
    monkeypatch.setattr(forms, "available", lambda: False)
    monkeypatch.setattr("zoo.ops.delta_rule.chunked.step_by_step", None)
    inputs = dplr_inputs(75, "any", True)
    inputs[5][:, :, 40:43] = -torch.inf
    inputs[5][:, :, 50:, :2] = -1e-3
    assert_same(dplr, dplr_naive, *inputs, tolerance=1e-9)
    single = [x.float() for x in inputs]
    for got, want in zip(dplr(*single), dplr(*inputs), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["mild", "none", "rwkv7"])
def test_long_float32_runs_stay_close_to_float64(case, form):
    if case == "rwkv7":
        exact, op = dplr_inputs(300, case, True), partial(dplr, floor=-0.6066)
    else:
        exact, op = delta_inputs(300, case, True), delta_rule
    o, S = op(*(x if x is None else x.float() for x in exact))
    want_o, want_S = op(*exact)
    torch.testing.assert_close(S.double(), want_S, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(o.double(), want_o, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("decay", [False, True], ids=["plain", "gated"])
def test_bfloat16_stays_close_to_float64(decay, form):
    """Of q, k and v in bfloat16: outputs come in it too; β, decays and the state stay wide. Heads of a usual width."""
    torch.manual_seed(0)
    q, k = (F.normalize(normal(200, 64), dim=-1).bfloat16() for _ in range(2))
    v, beta, S = normal(200, 64).bfloat16(), normal(200).sigmoid().float(), normal(64, 64).float()
    half = q, k, v, beta, -0.2 * torch.rand(B, H, 200) if decay else None, S
    assert [x.dtype for x in delta_rule(*half)] == [torch.bfloat16, torch.float32]
    assert_near_float64(delta_rule, delta_rule, *half, limit=0.01)


def test_a_broken_floor_is_never_silently_wrong(monkeypatch):
    """Where factors overflow, steps follow one by one."""
    monkeypatch.setattr(forms, "available", lambda: False)
    inputs = [x.float() for x in dplr_inputs(64, "any", True)]
    torch.testing.assert_close(dplr(*inputs, floor=-0.6066), dplr_naive(*inputs))
    inputs[1][0, 0, 40, 0] = float("nan")
    torch.testing.assert_close(dplr(*inputs, floor=-0.6066), dplr_naive(*inputs), equal_nan=True)


def test_the_triangular_inverse_is_counted_once(monkeypatch):
    monkeypatch.setattr("zoo.ops.delta_rule.chunked.CHUNK", 16)
    inputs = [x if x is None else x.requires_grad_() for x in delta_inputs(32, "none", False)]
    with flops.Counter() as counter:
        o, _ = delta_rule(*inputs)
        forward = counter.total
        o.sum().backward()
    assert forward == counter.total == B * H * 2 * 16**3 // 3


def test_shapes_without_data():
    with torch.device("meta"):
        q, v, beta = torch.empty(B, H, 20, K), torch.empty(B, H, 20, V), torch.empty(B, H, 20)
    assert delta_rule(q, q, v, beta, beta)[1].shape == (B, H, K, V)
    assert dplr(q, q, v, q, q, q)[0].shape == (B, H, 20, V)
