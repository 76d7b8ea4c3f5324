"""Compiled norms equal the naive form, in outputs and gradients."""

import pytest
import torch

from zoo.ops import forms, norms
from zoo.ops.kernel_log import record_kernels
from zoo.ops.norms import naive

from ..conftest import differentiated

pytestmark = pytest.mark.skipif(not forms.available(), reason="needs numba")
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 5e-3}


def close(got, want, dtype):
    for ours, true in zip(got, want, strict=True):
        assert float((ours.double() - true.double()).norm()) <= TOLERANCES[dtype] * float(true.double().norm())


NORMS = {
    "rms": (lambda f, o, w: f.rms(o, w, 1e-5), 2),
    "swish": (lambda f, o, w, g: f.rms(o, w, 1e-5, g), 3),
    "sigmoid": (lambda f, o, w, g: f.rms(o, w, 1e-5, g, "sigmoid"), 3),
    "gated": (lambda f, o, w, g: f.gated_rms(o, w, 1e-5, g), 3),
    "gate within wider rows": (
        lambda f, o, w, g: f.gated_rms(o, w, 1e-5, torch.cat([g, o], -1)[..., : len(w)]),
        3,
    ),
}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 3, 64), (150, 33), (0, 4)], ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_loops_equal_torch(name, shape, dtype):
    torch.manual_seed(0)
    norm, count = NORMS[name]
    inputs = [x.to(dtype) for x in (2 * torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape))[:count]]
    with record_kernels() as log:
        got = differentiated(lambda *x: norm(norms, *x), *inputs)
    assert list(log.values()) == ["compiled loop"]
    assert all(x.dtype is dtype for x in got)
    close(got, differentiated(lambda *x: norm(naive, *x), *(x.double() for x in inputs)), dtype)


F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
MIXED = [
    *(("rms", (F32,), dtype) for dtype in (F32, F16, BF16, F64)),
    *(("swish", (F32, F32), dtype) for dtype in (F32, F16, BF16)),
    ("rms", (F64,), BF16),
]


@pytest.mark.parametrize(("name", "dtypes", "dtype"), MIXED, ids=str)
def test_inputs_and_results_of_several_dtypes(name, dtypes, dtype):
    """As where a norm is for products alone."""
    torch.manual_seed(0)
    (x, *others), w = (torch.randn(70, 33).to(of) for of in dtypes), torch.randn(33)

    def norm(form):
        return differentiated(lambda x, w, *gate: form.rms(x, w, 1e-5, *gate, dtype=dtype), x, w, *others)

    got, want = norm(norms), norm(naive)
    assert [x.dtype for x in got] == [x.dtype for x in want]
    close(got, want, BF16 if {BF16, F16} & {*dtypes, dtype} else F32)
