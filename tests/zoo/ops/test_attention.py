"""Attention by torch's kernels against the equation: values and gradients, in every dtype, under masks and bias."""

import pytest
import torch

from zoo.ops import forms
from zoo.ops.attention import attend, attend_naive
from zoo.ops.kernel_log import record_kernels

B, H, K, V = 2, 4, 8, 6
LIMITS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}


@pytest.fixture(autouse=True)
def torch_alone(monkeypatch):
    monkeypatch.setattr(forms, "available", lambda: False)


def inputs(T, S, G=H, dtype=torch.float64):
    generator = torch.Generator().manual_seed(T + S)
    shapes = (B, H, T, K), (B, G, S, K), (B, G, S, V)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def differences(op, truth, tensors, **options):
    """Relative error of the output and of every gradient; where one key leaves a gradient of zero, absolute."""
    wide = [x.detach().double().requires_grad_() for x in tensors]
    y, want = op(*tensors, **options), truth(*wide, **options)
    dy = torch.randn_like(y)
    got = [y, *torch.autograd.grad(y, tensors, dy)]
    want = [want, *torch.autograd.grad(want, wide, dy.double())]
    return [float(((a.double() - b).norm() / (b.norm() or 1)).detach()) for a, b in zip(got, want, strict=True)]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S", "G"), [(1, 1, 4), (2, 2, 4), (70, 71, 4), (70, 70, 2), (57, 57, 1)])
def test_plain_scores(T, S, G, causal, dtype):
    with record_kernels() as log:
        found = differences(attend, attend_naive, inputs(T, S, G, dtype), causal=causal, scale=0.3)
    assert max(found) < LIMITS[dtype]
    assert log == {"attention": "torch"}


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_a_learned_bias_gets_its_gradient(causal, dtype):
    """Also where some keys are hidden; every query sees the first."""
    q, k, v = inputs(40, 40, dtype=dtype)
    bias = torch.randn(1, H, 40, 40, dtype=torch.float64).to(dtype).requires_grad_()
    for visible in (None, (torch.rand(B, 1, 40, 40) < 0.7) | (torch.arange(40) == 0)):
        op, truth = (
            lambda q, k, v, bias, form=form, visible=visible: form(q, k, v, bias=bias, visible=visible, causal=causal)
            for form in (attend, attend_naive)
        )
        assert max(differences(op, truth, [q, k, v, bias])) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_one_bias_and_mask_for_all_queries(dtype):
    bias, visible = torch.randn(B, 1, 1, 50).to(dtype), torch.arange(50) < torch.tensor([50, 20])[:, None, None, None]
    found = differences(
        lambda *x: attend(*x, bias=bias.expand(-1, -1, 40, -1), visible=visible),
        lambda *x: attend_naive(*x, bias=bias, visible=visible),
        inputs(40, 50, dtype=dtype),
    )
    assert max(found) < LIMITS[dtype]


def test_more_heads_of_values_than_of_keys():
    q, k, v = inputs(20, 20)
    assert max(differences(attend, attend_naive, [q, k[:, :1].detach().requires_grad_(), v], causal=True)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_queries_before_all_keys_are_zero(dtype):
    q, k, v = inputs(300, 100, dtype=dtype)
    y = attend(q, k, v, causal=True)
    assert not y[:, :, :200].any()
    torch.testing.assert_close(y[:, :, 200:], attend(q[:, :, 200:], k, v, causal=True))


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_what_is_hidden_leaves_no_trace(dtype):
    q, k, v = inputs(140, 140, dtype=dtype)
    visible = torch.arange(140)[None, None, None] < 70
    y = attend(q, k, v, visible=visible)
    with torch.no_grad():
        k[:, :, 70:], v[:, :, 70:] = 100, 1e4
    assert torch.equal(y, attend(q, k, v, visible=visible))
