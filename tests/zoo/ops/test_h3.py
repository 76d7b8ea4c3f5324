"""H3 in chunks equals its recurrence, in outputs and gradients."""

import pytest
import torch

from zoo.ops.h3 import h3, h3_naive

from .conftest import assert_near, assert_same, differentiated

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2}
D, B, N = 5, 2, 3


def inputs(T, W):
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64)

    log_a = torch.complex(-torch.rand(D, N, generator=random, dtype=torch.float64), 2 * normal(D, N))
    return normal(3, D, B, T), normal(3, D), normal(D, W), torch.complex(normal(D, N), normal(D, N)), log_a, normal(D)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("W", [1, 8, 13])
@pytest.mark.parametrize("T", [1, 32, 75])
def test_equals_the_recurrence(form, T, W, dtype):
    exact = inputs(T, W)
    full = torch.float64 if dtype is torch.float64 else torch.float32
    given = [exact[0].to(dtype), *(x.to(full.to_complex() if x.is_complex() else full) for x in exact[1:])]
    have, want = differentiated(h3, *given), differentiated(h3_naive, *exact)
    assert [x.dtype for x in have] == [x.dtype for x in (given[0], *given)]
    assert_near(have, want, TOLERANCES[dtype])


@pytest.mark.parametrize("real", [-1e-6, -300.0])
def test_systems_that_hardly_decay_and_systems_that_do_at_once(form, real):
    *given, log_a, skip = inputs(200, 4)
    log_a = torch.complex(torch.full_like(log_a.real, real), log_a.imag)
    assert_same(h3, h3_naive, *given, log_a, skip, tolerance=1e-9)
