"""Norms over the width of a head: the compiled loops equal the torch form, in outputs and gradients."""

import pytest
import torch

from zoo.ops import compiled, norms

from .conftest import differentiated

pytestmark = pytest.mark.skipif(not compiled.available(), reason="needs numba")
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 5e-3}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 3, 64), (150, 33)], ids=str)
@pytest.mark.parametrize(
    ("norm", "count"),
    [
        (lambda x: norms.unit(x, 0.3), 1),
        (norms.simplex, 1),
        (lambda o, w: norms.rms(o, w, 1e-5), 2),
        (lambda o, w, g: norms.rms(o, w, 1e-5, g), 3),
        (lambda o, w, g: norms.rms(o, w, 1e-5, g, "sigmoid"), 3),
        (lambda o, w, g: norms.gated_rms(o, w, 1e-5, g), 3),
    ],
    ids=["unit", "simplex", "rms", "swish", "sigmoid", "gated"],
)
def test_loops_equal_torch(monkeypatch, norm, count, shape, dtype):
    torch.manual_seed(0)
    inputs = [x.to(dtype) for x in (2 * torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape))[:count]]
    got = differentiated(norm, *inputs)
    monkeypatch.setattr(compiled, "available", lambda: False)
    want = differentiated(norm, *(x.double() for x in inputs))
    for ours, true in zip(got, want, strict=True):
        assert ours.dtype is dtype
        assert float((ours.double() - true).norm()) <= TOLERANCES[dtype] * float(true.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gated", [False, True])
def test_rms_in_another_dtype(monkeypatch, gated, dtype):
    torch.manual_seed(0)
    inputs = [torch.randn(5, 33), torch.randn(33), torch.randn(5, 33)][: 3 if gated else 2]

    def norm(o, w, *gate):
        return norms.rms(o, w, 1e-5, *gate, dtype=dtype)

    got = differentiated(norm, *inputs)
    monkeypatch.setattr(compiled, "available", lambda: False)
    want = differentiated(norm, *inputs)
    assert [x.dtype for x in got] == [x.dtype for x in want] == [dtype] + [torch.float32] * len(inputs)
    for ours, true in zip(got, want, strict=True):
        assert float((ours.double() - true.double()).norm()) <= TOLERANCES[dtype] * float(true.double().norm())


def test_rows_that_vanish():
    """Zeros, and elu + 1 of what is far below zero: finite, with finite gradients."""
    for norm, x in ((norms.unit, torch.zeros(2, 8)), (norms.simplex, torch.full((2, 8), -90.0))):
        assert all(bool(y.isfinite().all()) for y in differentiated(norm, x))
