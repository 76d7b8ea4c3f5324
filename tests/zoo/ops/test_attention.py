"""Attention in blocks of queries against the equation: values and gradients, in every dtype, under masks and bias."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo.ops import flops, forms
from zoo.ops import official as kernels
from zoo.ops.attention import attend, attend_naive, flash
from zoo.ops.attention.fused import in_blocks
from zoo.size import _FORMULAS

if forms.available():
    from zoo.ops.cpu.attention import TiledAttention

pytestmark = pytest.mark.skipif(not forms.available(), reason="needs numba")

B, H, K, V = 2, 4, 8, 6


def pretend(monkeypatch, tiles):
    """To choose as a CPU with or without matrix tiles."""
    monkeypatch.setattr(forms, "has_tiles", lambda: tiles)


def inputs(T, S, G=H, dtype=torch.float64):
    generator = torch.Generator().manual_seed(T + S)
    shapes = (B, H, T, K), (B, G, S, K), (B, G, S, V)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def narrowed(T, S):
    """A bias with a gradient, and keys that some queries do not see; every query sees the first."""
    bias = torch.randn(1, H, T, S, dtype=torch.float64).requires_grad_()
    return bias, (torch.rand(B, 1, T, S) < 0.7) | (torch.arange(S) == 0)


def differences(op, truth, tensors, **options):
    """Relative error of the output and of every gradient; where one key leaves a gradient of zero, absolute."""
    wide = [x.detach().double().requires_grad_() for x in tensors]
    y, want = op(*tensors, **options), truth(*wide, **options)
    dy = torch.randn_like(y)
    got = [y, *torch.autograd.grad(y, tensors, dy)]
    want = [want, *torch.autograd.grad(want, wide, dy.double())]
    return [float(((a.double() - b).norm() / (b.norm() or 1)).detach()) for a, b in zip(got, want, strict=True)]


def biased(op, visible, causal):
    return lambda q, k, v, bias: op(q, k, v, bias=bias, visible=visible, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S", "G"), [(1, 1, 4), (2, 2, 4), (130, 131, 4), (300, 300, 2), (257, 257, 1)])
def test_blocks_equal_the_equation(T, S, G, causal):
    assert max(differences(in_blocks, attend_naive, inputs(T, S, G), causal=causal, scale=0.3)) < 1e-13
    bias, visible = narrowed(T, S)
    op, truth = (biased(form, visible, causal) for form in (in_blocks, attend_naive))
    assert max(differences(op, truth, [*inputs(T, S, G), bias])) < 1e-13


def test_one_bias_and_mask_for_all_queries():
    q, k, v = inputs(140, 150)
    bias = torch.randn(B, 1, 1, 150, dtype=torch.float64).requires_grad_()
    visible = torch.arange(150) < torch.tensor([150, 20])[:, None, None, None]
    op, truth = (biased(form, visible, False) for form in (in_blocks, attend_naive))
    assert max(differences(op, truth, [q, k, v, bias])) < 1e-13


def test_more_heads_of_values_than_of_keys():
    q, k, v = inputs(20, 20)
    assert max(differences(in_blocks, attend_naive, [q, k[:, :1].detach().requires_grad_(), v], causal=True)) < 1e-13


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_precision(dtype, tolerance, causal, tiles, monkeypatch):
    """With matrix tiles torch's kernel runs forward where keys are as wide as values, and its lse serves backward."""
    pretend(monkeypatch, tiles)
    q, k, v = inputs(300, 300, 2, dtype)
    v = v.detach().repeat(1, 1, 1, 2)[..., :K].requires_grad_()
    assert flash.serves(q, k, v, causal) == (tiles and dtype is torch.bfloat16)
    assert max(differences(in_blocks, attend_naive, [q, k, v], causal=causal, scale=0.3)) < tolerance


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_a_bias_in_bfloat16(learned, tiles, monkeypatch):
    """Where a bias is learned it has a gradient; where not, torch's kernel takes it with matrix tiles."""
    pretend(monkeypatch, tiles)
    q, k, v = inputs(140, 140, dtype=torch.bfloat16)
    bias = narrowed(140, 140)[0].detach().requires_grad_(learned)
    op, truth = (biased(form, None, True) for form in (attend, attend_naive))
    if learned:
        assert max(differences(op, truth, [q, k, v, bias])) < 0.01
    else:
        assert max(differences(lambda *x: op(*x, bias), lambda *x: truth(*x, bias), [q, k, v])) < 0.01
    assert ("blocks" in kernels.used["attention"]) == (learned or not tiles)


@pytest.mark.parametrize("tiles", [False, True])
def test_bfloat16_on_a_cpu_takes_the_blocks(tiles, monkeypatch):
    pretend(monkeypatch, tiles)
    q, k, v = inputs(9, 9, dtype=torch.bfloat16)
    v = v.detach().repeat(1, 1, 1, 2)[..., :K]
    assert torch.equal(attend(q, k, v, causal=True), in_blocks(q, k, v, causal=True))
    assert kernels.used["attention"] == ("torch flash forward, compiled blocks back" if tiles else "compiled blocks")


@pytest.mark.parametrize("causal", [False, True])
def test_a_step_counts_the_same_flops_with_and_without_tiles(causal, monkeypatch):
    """Budgets of FLOPs are the same on every machine."""
    found = []
    for tiles in (False, True):
        pretend(monkeypatch, tiles)
        q, k, v = inputs(300, 300, 2, torch.bfloat16)
        v = v.detach().repeat(1, 1, 1, 2)[..., :K].requires_grad_()
        with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as products, flops.Counter() as ours:
            in_blocks(q, k, v, causal=causal).sum().backward()
        found.append(products.get_total_flops() + ours.total)
    assert found[0] == found[1] > 0


def test_large_scores_in_bfloat16_keep_their_gradients(monkeypatch):
    """Scores of some hundreds, rounded to bfloat16, would be off by units; what lies between them and lse is not."""
    pretend(monkeypatch, True)
    q, k, v = (x.detach() for x in inputs(200, 200, dtype=torch.bfloat16))
    q, k, v = (20 * q).requires_grad_(), k.requires_grad_(), v.repeat(1, 1, 1, 2)[..., :K].requires_grad_()
    assert max(differences(in_blocks, attend_naive, [q, k, v], causal=True)) < 0.02


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S", "G", "V"), [(130, 130, 2, 6), (256, 256, 4, 64), (100, 300, 1, 8), (1, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_loops_that_multiply(dtype, T, S, G, V, causal):
    """Fast in float32 and bfloat16; in float64 products are plain loops, and all else is the same."""
    if dtype is not torch.float64 and not forms.has_matmul_kernel(dtype):
        pytest.skip(f"loops have no fast products in {dtype} here")
    q, k, v = inputs(T, S, G)
    v = v.detach().repeat(1, 1, 1, 11)[..., :V]
    tensors = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    limit = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 0.01}[dtype]

    def form(q, k, v):
        return TiledAttention.apply(q, k, v, causal, 0.3)

    assert max(differences(form, lambda *x: attend_naive(*x, causal=causal, scale=0.3), tensors)) < limit
    if dtype is not torch.float64 and min(T, S) > 64:
        assert torch.equal(attend(*tensors, causal=causal, scale=0.3), form(*tensors))
        assert kernels.used["attention"] == f"compiled, on {forms.matmul_backend(dtype)}"


def test_queries_before_all_keys_are_not_for_them():
    q, k, v = inputs(300, 100, dtype=torch.float32)
    y = attend(q, k, v, causal=True)
    assert "compiled, on" not in kernels.used["attention"]
    assert not y[:, :, :200].any()
    torch.testing.assert_close(y[:, :, 200:], attend(q[:, :, 200:], k, v, causal=True))


def test_what_is_hidden_leaves_no_trace():
    q, k, v = inputs(140, 140, dtype=torch.bfloat16)
    visible = torch.arange(140)[None, None, None] < 70
    y = in_blocks(q, k, v, visible=visible)
    with torch.no_grad():
        k[:, :, 70:], v[:, :, 70:] = 100, 1e4
    assert torch.equal(y, in_blocks(q, k, v, visible=visible))


def test_large_scores_and_queries_without_keys():
    q, k, v = inputs(5, 3)
    y = in_blocks(q * 1e3, k, v)
    torch.testing.assert_close(y, attend_naive(q * 1e3, k, v))
    assert torch.equal(in_blocks(q, k, v, causal=True)[:, :, :2], torch.zeros(B, H, 2, V, dtype=torch.float64))
