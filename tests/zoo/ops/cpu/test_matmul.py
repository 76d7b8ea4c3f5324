"""Products inside compiled loops: in bfloat16 on what this CPU has for it, in float32 on vectors, and as plain loops in
float64."""

import pytest
import torch

from zoo.ops import forms

pytestmark = pytest.mark.skipif(not forms.available(), reason="numba is not installed")
NO_HALF = pytest.mark.skipif(not forms.matmul_backend(torch.bfloat16), reason="no fast products in bfloat16 here")
HALF = pytest.param(torch.bfloat16, marks=NO_HALF)

if forms.available():
    from zoo.ops.cpu.bfloat16 import array
    from zoo.ops.cpu.jit import loop
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
