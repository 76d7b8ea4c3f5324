"""Attention against the equation: values and gradients in every dtype; by torch, under masks and bias too, and by
compiled loops, which take plain scores."""

import importlib
from functools import partial

import pytest
import torch

from zoo.ops import flops, forms
from zoo.ops.attention import attend, attend_naive
from zoo.ops.kernel_log import record_kernels

from .conftest import assert_near_float64

B, H, K = 2, 4, 8
LIMITS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 0.01}
DTYPES = pytest.mark.parametrize("dtype", LIMITS, ids=str)


@pytest.fixture(params=["torch", "loops"])
def op(request, monkeypatch, dtype):
    """A form as a function of q, k, v, whether it is causal, and a scale. Loops are chosen where they have products."""
    if request.param == "torch":
        monkeypatch.setattr(forms, "available", lambda: False)
        return lambda q, k, v, causal, scale: attend(q, k, v, causal=causal, scale=scale)
    if not forms.available() or (dtype is not torch.float64 and forms.matmul_backend(dtype) is None):
        pytest.skip(f"no loops that multiply in {dtype} here")
    if dtype is torch.float64 and not request.config.getoption("--all"):
        pytest.skip("with --all only: nobody runs it, and it takes long to compile")
    return importlib.import_module("zoo.ops.cpu.attention").TiledAttention.apply


def inputs(T, S, G=H, V=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(T + S)
    shapes = (B, H, T, K), (B, G, S, K), (B, G, S, V)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


@DTYPES
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S", "G", "V"), [(1, 1, 4, 4), (2, 2, 4, 6), (130, 130, 2, 6), (100, 300, 1, 64)])
def test_plain_scores(op, dtype, T, S, G, V, causal):
    def naive(*x):
        return attend_naive(*x, causal=causal, scale=0.3)

    assert_near_float64(lambda *x: op(*x, causal, 0.3), naive, *inputs(T, S, G, V, dtype), limit=LIMITS[dtype])


@DTYPES
def test_large_scores(op, dtype):
    """Scores of some hundreds, rounded to bfloat16, would be off by units; those in loops are float32."""
    q, k, v = inputs(200, 200, dtype=dtype)
    naive = partial(attend_naive, causal=True)
    assert_near_float64(lambda *x: op(*x, True, K**-0.5), naive, 20 * q, k, v, limit=5 * LIMITS[dtype])


@DTYPES
def test_a_query_whose_keys_are_all_infinitely_far_is_nan(op, dtype):
    """What it does not see stays hidden behind −∞ too."""
    q, k, v = inputs(70, 70, dtype=dtype)
    q[:, :, 0], k[:, :, 0, 0] = -q[:, :, 0].abs(), float("inf")
    assert bool(op(q, k, v, True, 1.0)[:, :, 0].isnan().all())


def test_more_heads_of_values_than_of_keys(form):
    q, k, v = inputs(80, 80, dtype=torch.float32)
    causal, naive = partial(attend, causal=True), partial(attend_naive, causal=True)
    assert_near_float64(causal, naive, q, k[:, :1], v, limit=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_which_form_runs(form, dtype):
    """Torch does where loops do not pay or cannot count, and where some queries see no key."""
    backend, log = forms.matmul_backend(dtype) if form == "compiled" else None, {}
    q, k, v = inputs(100, 300, dtype=dtype)
    with record_kernels(log):
        attend(q, k, v, causal=True)
    assert log == {"attention": f"compiled loop, on {backend}" if backend else "torch"}
    with record_kernels() as log:
        attend(q.repeat(1, 1, 4, 1), k, v, causal=True)
        attend(q[:, :, :64], k, v)
        attend(q, k, v, visible=torch.ones(1, 1, 100, 300, dtype=torch.bool))
        with flops.Counter():
            attend(q, k, v)
    assert log == {"attention": "torch"}


@DTYPES
@pytest.mark.parametrize("causal", [False, True])
def test_a_learned_bias_gets_its_gradient(causal, dtype):
    """Also where some keys are hidden; every query sees the first."""
    q, k, v = inputs(40, 40, dtype=dtype)
    bias = torch.randn(1, H, 40, 40, dtype=torch.float64).to(dtype)
    for visible in (None, (torch.rand(B, 1, 40, 40) < 0.7) | (torch.arange(40) == 0)):
        ours, naive = (
            lambda q, k, v, bias, form=form, visible=visible: form(q, k, v, bias=bias, visible=visible, causal=causal)
            for form in (attend, attend_naive)
        )
        assert_near_float64(ours, naive, q, k, v, bias, limit=2 * LIMITS[dtype])


@DTYPES
def test_one_bias_and_mask_for_all_queries(dtype):
    bias, visible = torch.randn(B, 1, 1, 50).to(dtype), torch.arange(50) < torch.tensor([50, 20])[:, None, None, None]
    ours = partial(attend, bias=bias.expand(-1, -1, 40, -1), visible=visible)
    naive = partial(attend_naive, bias=bias, visible=visible)
    assert_near_float64(ours, naive, *inputs(40, 50, dtype=dtype), limit=2 * LIMITS[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_queries_before_all_keys_are_zero(monkeypatch, dtype):
    monkeypatch.setattr(forms, "available", lambda: False)
    q, k, v = inputs(300, 100, dtype=dtype)
    y = attend(q, k, v, causal=True)
    assert not y[:, :, :200].any()
    torch.testing.assert_close(y[:, :, 200:], attend(q[:, :, 200:], k, v, causal=True))


@DTYPES
def test_what_is_hidden_leaves_no_trace(dtype):
    q, k, v = inputs(140, 140, dtype=dtype)
    visible = torch.arange(140)[None, None, None] < 70
    y = attend(q, k, v, visible=visible)
    k[:, :, 70:], v[:, :, 70:] = 100, 1e4
    assert torch.equal(y, attend(q, k, v, visible=visible))


@DTYPES
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("T", "S", "G", "causal"), [(1, 9, 4, True), (130, 130, 2, True), (70, 90, 1, False)])
def test_sinks_and_a_bias_of_keys(form, dtype, T, S, G, causal, with_bias):
    """Of every head, and for all queries alike."""
    wide = torch.promote_types(dtype, torch.float32)
    sink, bias = torch.randn(H, dtype=wide), torch.randn(B, H, 1, S, dtype=wide)
    ours, naive = (
        lambda q, k, v, sink, bias, form=form: form(
            q, k, v, causal=causal, sink=sink, bias=bias if with_bias else bias.expand(-1, -1, T, -1) * 0
        )
        for form in (attend, attend_naive)
    )
    assert_near_float64(ours, naive, *inputs(T, S, G, dtype=dtype), sink, bias, limit=2 * LIMITS[dtype])


@DTYPES
def test_sinks_under_a_mask_and_a_bias_of_pairs(dtype):
    """A query that sees no key gives all to its sink."""
    q, k, v = inputs(40, 50, dtype=dtype)
    sink, bias = torch.randn(H).to(dtype), torch.randn(1, 1, 40, 50).to(dtype)
    visible = (torch.rand(B, 1, 40, 50) < 0.7) & (torch.arange(40) > 0)[:, None]
    ours, naive = (
        lambda q, k, v, sink, bias, form=form: form(q, k, v, sink=sink, bias=bias, visible=visible)
        for form in (attend, attend_naive)
    )
    assert not ours(q, k, v, sink, bias)[:, :, 0].any()
    assert_near_float64(ours, naive, q, k, v, sink, bias, limit=2 * LIMITS[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_bias_of_thousands_keeps_its_digits(form, dtype):
    """Differences of neighbours by about 1, at 2000: 8 bits would round them to multiples of 16."""
    q, k, v = inputs(200, 200, dtype=dtype)
    bias = -(2000 + torch.rand(B, H, 1, 200).cumsum(-1)).flip(-1)
    ours, naive = (lambda q, k, v, form=form: form(q, k, v, causal=True, bias=bias) for form in (attend, attend_naive))
    assert_near_float64(ours, naive, q, k, v, limit={torch.float32: 1e-3, torch.bfloat16: 0.02}[dtype])
