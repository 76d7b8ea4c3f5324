"""Products inside compiled loops, and the recurrences made of them: in bfloat16 on what this CPU has for it, in
float32 on vectors, and as plain loops in float64."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops import forms
from zoo.ops import official as kernels
from zoo.ops.delta_rule import delta_rule, delta_rule_naive
from zoo.ops.linear_attention import linear_attention, recurrent

pytestmark = pytest.mark.skipif(not forms.available(), reason="numba is not installed")
NO_HALF = pytest.mark.skipif(not forms.has_matmul_kernel(torch.bfloat16), reason="no fast products in bfloat16 here")
HALF = pytest.param(torch.bfloat16, marks=NO_HALF)
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, HALF])

if forms.available():
    from zoo.ops.cpu.bfloat16 import array
    from zoo.ops.cpu.channel_decay import TiledChannelDecay
    from zoo.ops.cpu.delta_rule import TiledWY
    from zoo.ops.cpu.jit import loop
    from zoo.ops.cpu.linear_attention import TiledLinearAttention
    from zoo.ops.cpu.matmul import aligned_zeros, enter, leave, pack_pairs, product, transpose_left, transpose_right

    @loop
    def multiply(a, b, turned_b, c):
        """2 a b, by both ways to a right form of b; and bᵀ."""
        (m, k), n = a.shape, b.shape[1]
        left, right, turned, again, sums = (
            aligned_zeros(m * k, a),
            aligned_zeros(k * n, a),
            aligned_zeros(k * n, a),
            aligned_zeros(k * n, a),
            aligned_zeros(m * n, c),
        )
        left[:], right[:] = a.reshape(m * k), b.reshape(k * n)
        before = enter(a)
        pack_pairs(right, again, k, n)
        product(left, again, sums, m, n, k, False)
        transpose_left(again, turned, k, n)
        turned_b[:] = turned.reshape(n, k)
        transpose_right(turned, again, n, k)
        product(left, again, sums, m, n, k, True)
        leave(before, a)
        c[:] = sums.reshape(m, n)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, HALF])
@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 64), (16, 48, 32), (48, 16, 64), (32, 112, 96), (32, 64, 96)])
def test_products(dtype, m, n, k):
    a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    turned, c = torch.empty(n, k, dtype=dtype), torch.empty(m, n, dtype=torch.promote_types(dtype, torch.float32))
    multiply(array(a), array(b), array(turned), array(c))
    assert torch.equal(turned, b.mT)
    torch.testing.assert_close(
        c.double(), 2 * a.double() @ b.double(), rtol=0, atol=1e-12 if dtype.itemsize > 4 else 1e-4
    )


def inputs(T, K, V, decay, dtype, strength=0.3):
    """q, k (of unit length), v, a decay and a state of two rows and two heads, as projections lie in memory."""
    torch.manual_seed(T)
    q, k, v = (torch.randn(2, T, 2, width, dtype=torch.float64).transpose(1, 2) for width in (K, K, V))
    k = F.normalize(k, dim=-1)
    shape = {"none": None, "head": (2, 2, T), "channel": (2, 2, T, K)}[decay]
    g = None if shape is None else -strength * torch.randn(shape, dtype=torch.float64).abs()
    if strength > 1:
        g = g.masked_fill(torch.rand(shape) < 0.1, float("-inf"))
    S = torch.randn(2, 2, K, V, dtype=torch.float64)
    wide = torch.promote_types(dtype, torch.float32)
    return *(x.to(dtype) for x in (q, k, v)), None if g is None else g.to(wide), S.to(wide)


def assert_close(form, naive, given):
    """Outputs and gradients, beside the naive form in float64."""
    half = given[0].dtype is torch.bfloat16
    results = []
    for run, leaves in ((form, given), (naive, [None if x is None else x.double() for x in given])):
        leaves = [None if x is None else x.detach().clone().requires_grad_() for x in leaves]
        outputs = run(*leaves)
        torch.manual_seed(0)
        sum((y.double() * torch.randn(y.shape, dtype=torch.float64)).sum() for y in outputs).backward()
        results.append([*outputs, *(x.grad for x in leaves if x is not None)])
    for have, want in zip(*results, strict=True):
        assert (have.double() - want).norm() <= (1e-2 if half else 1e-12) * want.norm()


SIZES = pytest.mark.parametrize(("T", "K", "V"), [(1, 8, 4), (70, 5, 4), (130, 32, 64), (150, 48, 20)])


@DTYPES
@SIZES
@pytest.mark.parametrize(("decay", "strength"), [("none", 0), ("head", 0.3), ("head", 20)])
def test_linear_attention(dtype, T, K, V, decay, strength):
    def form(q, k, v, g, S):
        return TiledLinearAttention.apply(q, k, v, g, S, S[..., 0].detach(), 0.7, None)[:2]

    def naive(q, k, v, g, S):
        o, S = recurrent(q, k, v, g, S)
        return 0.7 * o, S

    assert_close(form, naive, inputs(T, K, V, decay, dtype, strength))


@DTYPES
@SIZES
@pytest.mark.parametrize("decay", ["none", "head"])
def test_means(dtype, T, K, V, decay):
    q, k, v, g, S = inputs(T, K, V, decay, dtype)
    z = torch.rand(2, 2, K).to(S.dtype)

    def form(q, k, v, g, S, z):
        return TiledLinearAttention.apply(q, k, v, g, S, z, 1.0, 1e-3)

    def naive(q, k, v, g, S, z):
        v, S = F.pad(v, (0, 1), value=1.0), torch.cat([S, z[..., None]], dim=-1)
        o, S = recurrent(q, k, v, g, S)
        return o[..., :-1] / (o[..., -1:] + 1e-3), S[..., :-1], S[..., -1]

    assert_close(form, naive, (q.abs(), k.abs(), v, g, S, z))


@DTYPES
@SIZES
@pytest.mark.parametrize("strength", [0.1, 1, 20])
def test_a_decay_per_channel(dtype, T, K, V, strength):
    """Chunks whose decays are mild go about their middle; others step by step."""

    def naive(q, k, v, g, S):
        o, S = recurrent(q, k, v, g, S)
        return 0.7 * o, S

    assert_close(lambda *x: TiledChannelDecay.apply(*x, 0.7), naive, inputs(T, K, V, "channel", dtype, strength))


@DTYPES
@SIZES
@pytest.mark.parametrize(("decay", "strength"), [("none", 0), ("head", 0.3), ("head", 20)])
def test_the_delta_rule(dtype, T, K, V, decay, strength):
    q, k, v, g, S = inputs(T, K, V, decay, dtype, strength)
    beta = torch.rand(2, 2, T).to(S.dtype)
    assert_close(TiledWY.apply, delta_rule_naive, (q, k, v, beta, g, S))


@NO_HALF
def test_bfloat16_goes_to_loops():
    unit = forms.matmul_backend(torch.bfloat16)
    for decay in ("none", "head", "channel"):
        q, k, v, g, S = inputs(5, 8, 8, decay, torch.bfloat16)
        assert linear_attention(q, k, v, g, S)[0].dtype is torch.bfloat16
        assert kernels.used["linear_attention"] == f"chunked, on {unit}"
    delta_rule(q, k, v, torch.rand(2, 2, 5), state=S)
    assert kernels.used["delta_rule"] == f"chunked, on {unit}"
