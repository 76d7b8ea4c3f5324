"""Attention by compiled loops against the equation."""

import pytest
import torch

from zoo.ops import flops, forms

if not forms.available():
    pytest.skip("needs numba", allow_module_level=True)

from zoo.ops.attention import attend, attend_naive
from zoo.ops.cpu.attention import TiledAttention
from zoo.ops.kernel_log import record_kernels

from ..test_attention import K, differences, inputs

LIMITS = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 0.01}
DTYPES = pytest.mark.parametrize("dtype", LIMITS, ids=str)


def needs_products(dtype):
    """Fast in float32 and bfloat16; in float64 products are plain loops, and all else is the same."""
    if dtype is not torch.float64 and forms.matmul_backend(dtype) is None:
        pytest.skip(f"loops have no fast products in {dtype} here")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S", "G", "V"), [(130, 130, 2, 6), (256, 256, 4, 64), (100, 300, 1, 8), (1, 1, 4, 4)])
@DTYPES
def test_loops_equal_the_equation(dtype, T, S, G, V, causal):
    needs_products(dtype)
    q, k, v = inputs(T, S, G)
    v = v.detach().repeat(1, 1, 1, 11)[..., :V]
    tensors = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]

    def form(q, k, v):
        return TiledAttention.apply(q, k, v, causal, 0.3)

    assert max(differences(form, lambda *x: attend_naive(*x, causal=causal, scale=0.3), tensors)) < LIMITS[dtype]
    if dtype is not torch.float64 and min(T, S) > 64:
        with record_kernels() as log:
            assert torch.equal(attend(*tensors, causal=causal, scale=0.3), form(*tensors))
        assert log == {"attention": f"compiled loop, on {forms.matmul_backend(dtype)}"}


def test_a_head_of_keys_for_each_head_of_values():
    needs_products(torch.float32)
    q, k, v = inputs(80, 80, dtype=torch.float32)
    assert max(differences(attend, attend_naive, [q, k[:, :1].detach().requires_grad_(), v], causal=True)) < 1e-6


def test_torch_runs_where_loops_do_not_pay_or_cannot_count():
    q, k, v = inputs(300, 100, dtype=torch.float32)
    with record_kernels() as log:
        attend(q, k, v, causal=True)  # some queries see no key
        attend(q[:, :, :64], k, v)
        attend(q, k, v, visible=torch.ones(300, 100, dtype=torch.bool))
        with flops.Counter():
            attend(q, k, v)
    assert log == {"attention": "torch"}


@DTYPES
def test_large_scores(dtype):
    """Scores of some hundreds, rounded to bfloat16, would be off by units; those in loops are float32."""
    needs_products(dtype)
    q, k, v = (x.detach() for x in inputs(200, 200, dtype=dtype))
    tensors = [(20 * q).requires_grad_(), k.requires_grad_(), v.requires_grad_()]
    found = differences(
        lambda *x: TiledAttention.apply(*x, True, K**-0.5), lambda *x: attend_naive(*x, causal=True), tensors
    )
    assert max(found) < 5 * LIMITS[dtype]


@DTYPES
def test_a_query_whose_keys_are_all_infinitely_far_is_nan(dtype):
    """What it does not see stays hidden behind −∞ too."""
    needs_products(dtype)
    q, k, v = (x.detach() for x in inputs(70, 70, dtype=dtype))
    q[:, :, 0], k[:, :, 0, 0] = -q[:, :, 0].abs(), float("inf")
    y = TiledAttention.apply(q, k, v, True, 1.0)
    assert bool(y[:, :, 0].isnan().all())
