"""Linear attention and delta rules in compiled loops equal their naive forms, in outputs, states and gradients: in
bfloat16 and float32 on what this CPU multiplies with, and in float64 by plain loops."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops import flops, forms
from zoo.ops.delta_rule import delta_rule, delta_rule_naive, dplr
from zoo.ops.kernel_log import record_kernels
from zoo.ops.linear_attention import linear_attention, recurrent

if not forms.available():
    pytest.skip("needs numba", allow_module_level=True)

from zoo.ops.cpu import linear_attention as loops
from zoo.ops.cpu.channel_decay import TiledChannelDecay
from zoo.ops.cpu.delta_rule import TiledDeltaRule
from zoo.ops.cpu.linear_attention import TiledLinearAttention

from ..conftest import assert_near_float64

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}
MULTIPLY = [dtype for dtype in (torch.float32, torch.bfloat16) if forms.matmul_backend(dtype)]
FLOAT64 = pytest.param(torch.float64, marks=pytest.mark.with_all)  # half a minute to compile, and nobody runs it
DTYPES = pytest.mark.parametrize("dtype", [FLOAT64, *MULTIPLY], ids=str)
FAST = pytest.mark.parametrize("dtype", MULTIPLY, ids=str)
SIZES = pytest.mark.parametrize(("T", "K", "V"), [(1, 8, 4), (64, 5, 20), (150, 48, 20)])


def inputs(T, K, V, decay, dtype, strength=0.3, G=2, H=2):
    """q, k (of unit length), v, a decay and a state of two rows, as projections lie in memory."""
    torch.manual_seed(T)
    shapes = (G, K), (G, K), (H, V)
    q, k, v = (torch.randn(2, T, *shape, dtype=torch.float64).transpose(1, 2) for shape in shapes)
    k = F.normalize(k, dim=-1)
    shape = {"none": None, "head": (2, H, T), "channel": (2, H, T, K)}[decay]
    g = None if shape is None else -strength * torch.randn(shape, dtype=torch.float64).abs()
    if strength > 1:
        g = g.masked_fill(torch.rand(shape) < 0.1, float("-inf"))
    S = torch.randn(2, H, K, V, dtype=torch.float64)
    wide = torch.promote_types(dtype, torch.float32)
    return *(x.to(dtype) for x in (q, k, v)), None if g is None else g.to(wide), S.to(wide)


def assert_close(form, naive, *given):
    assert_near_float64(form, naive, *given, limit=TOLERANCES[given[0].dtype])


@DTYPES
@SIZES
@pytest.mark.parametrize(("decay", "strength"), [("none", 0), ("head", 0.3), ("head", 20)])
@pytest.mark.parametrize("op", ["sums", "delta rule"])
def test_no_decay_or_one_per_head(op, dtype, T, K, V, decay, strength):
    q, k, v, g, S = inputs(T, K, V, decay, dtype, strength)
    if op == "sums":
        assert_close(loops.linear_attention, recurrent, q, k, v, g, S)
    else:
        assert_close(TiledDeltaRule.apply, delta_rule_naive, q, k, v, torch.rand(2, 2, T).to(S.dtype), g, S)


@FAST
@pytest.mark.parametrize("threads", [1, 4, 16])
@pytest.mark.parametrize("decay", ["none", "head"])
def test_heads_that_share_keys(monkeypatch, dtype, threads, decay):
    """Worked on all at once, or in as many parts as give every thread work."""
    given, given_heads, apply = inputs(70, 16, 8, decay, dtype, G=2, H=8), [], TiledLinearAttention.apply

    def count_heads(q, *rest):
        given_heads.append(q.shape[1])
        return apply(q, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        patch.setattr(TiledLinearAttention, "apply", count_heads)
        loops.linear_attention(*given)
        assert given_heads == [{1: 2, 4: 2, 16: 8}[threads]]
        assert_close(loops.linear_attention, recurrent, *given)


@DTYPES
@SIZES
@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("strength", [0.1, 1, 20])
def test_a_decay_per_channel(dtype, T, K, V, strength, bonus):
    """Chunks whose decays are mild go about their middle; others step by step."""
    given = inputs(T, K, V, "channel", dtype, strength)
    u = torch.rand(2, K).to(given[-1].dtype) if bonus else None

    def scaled(*x):
        o, S = recurrent(*x)
        return 0.7 * o, S

    assert_close(lambda *x: TiledChannelDecay.apply(*x, 0.7), scaled, *given, u)


@FAST
def test_ops_choose_loops(dtype):
    (q, k, v, g, S), by_channel = inputs(5, 8, 8, "head", dtype), inputs(5, 8, 8, "channel", dtype)[3]
    for op, run in (
        ("linear_attention", lambda: linear_attention(q, k, v)),
        ("linear_attention", lambda: linear_attention(q, k, v, g, S)),
        ("linear_attention", lambda: linear_attention(q, k, v, by_channel, S)),
        ("linear_attention", lambda: linear_attention(q, k, v, bonus=torch.rand(2, 8))),
        ("delta_rule", lambda: delta_rule(q, k, v, torch.rand(2, 2, 5), state=S)),
    ):
        with record_kernels() as log:
            assert run()[0].dtype is dtype
        assert log == {op: f"chunked, on {forms.matmul_backend(dtype)}"}
    with record_kernels() as log:
        dplr(*(x.float() for x in (q, k, v, -k, k)), by_channel)
    assert log == {"dplr": "compiled loop"}


@FAST
def test_flops_of_a_decay_per_channel_are_reported(dtype):
    q, k, v, g, S = (x.requires_grad_() for x in inputs(70, 16, 8, "channel", dtype))
    with flops.Counter() as counter, record_kernels() as log:
        linear_attention(q, k, v, g, S)[0].sum().backward()
    assert "chunked, on" in log["linear_attention"]
    assert counter.total == 3 * 4 * q.numel() * v.shape[3]
