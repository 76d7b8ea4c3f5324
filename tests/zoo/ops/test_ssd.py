"""State space duality in chunks equals its recurrence, in outputs, states and gradients."""

import pytest
import torch

from zoo.ops.ssd import ssd, ssd_naive

from .conftest import assert_near, differentiated

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}
B, H, N, P = 2, 4, 5, 6


def inputs(T, G):
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64)

    x, delta, decay = normal(B, T, H, P).transpose(1, 2), normal(B, H, T).exp(), -normal(B, H, T).exp() / 4
    return x, delta, decay, normal(B, G, T, N), normal(B, G, T, N), normal(H, P), normal(B, H, N, P)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("G", [1, 4])
@pytest.mark.parametrize("T", [1, 16, 75])
def test_ssd(form, T, G, dtype):
    full = torch.float64 if dtype is torch.float64 else torch.float32
    exact, kinds = inputs(T, G), (dtype, full, full, dtype, dtype, full, full)
    given = [x.to(kind) for x, kind in zip(exact, kinds, strict=True)]
    have = differentiated(lambda *x: ssd(*x, chunk=32), *given)
    want = differentiated(ssd_naive, *exact)
    assert [x.dtype for x in have] == [dtype, full, *kinds]
    assert_near(have, want, TOLERANCES[dtype])
