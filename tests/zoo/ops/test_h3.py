"""H3 in chunks equals its recurrence, in outputs and gradients."""

import pytest
import torch

from zoo.ops import forms
from zoo.ops.h3 import h3, h3_naive

from .conftest import differentiated

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2}
D, B, N = 5, 2, 3


def inputs(T, W):
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64)

    log_a = torch.complex(-torch.rand(D, N, generator=random, dtype=torch.float64), 2 * normal(D, N))
    return (
        normal(3, D, B, T),
        normal(3, D),
        normal(D, W),
        torch.complex(normal(D, N), normal(D, N)),
        log_a,
        normal(D),
    )


@pytest.mark.parametrize("form", ["loops", "naive"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("W", [1, 8, 13])
@pytest.mark.parametrize("T", [2, 32, 75])
def test_h3(monkeypatch, T, W, dtype, form):
    if form == "naive":
        monkeypatch.setattr(forms, "available", lambda: False)
    elif not forms.available():
        pytest.skip("needs numba")
    exact = inputs(T, W)
    full = torch.float64 if dtype is torch.float64 else torch.float32
    given = [exact[0].to(dtype), *(x.to(full.to_complex() if x.is_complex() else full) for x in exact[1:])]
    have, want = differentiated(h3, *given), differentiated(h3_naive, *exact)
    for ours, true, like in zip(have, want, [given[0], *given], strict=True):
        assert ours.dtype is like.dtype
        assert float((ours.to(true.dtype) - true).abs().norm()) <= TOLERANCES[dtype] * float(true.abs().norm())


@pytest.mark.skipif(not forms.available(), reason="needs numba")
def test_systems_that_hardly_decay_and_systems_that_do_at_once():
    features, bias, w, c, log_a, skip = inputs(200, 4)
    for real in (-1e-6, -300.0):
        log_a = torch.complex(torch.full_like(log_a.real, real), log_a.imag)
        for ours, true in zip(
            *(differentiated(f, features, bias, w, c, log_a, skip) for f in (h3, h3_naive)), strict=True
        ):
            torch.testing.assert_close(ours, true, rtol=1e-9, atol=1e-9)
