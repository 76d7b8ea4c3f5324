"""Norms over the last axis and φ, by torch and by loops, equal their equations in outputs and gradients."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops import elementwise, forms, norms
from zoo.ops.kernel_log import record_kernels
from zoo.ops.norms import naive

from .conftest import assert_near, assert_near_float64, differentiated

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 5e-3}


def phi(x):
    return F.elu(x) + 1


def normed(u, w):
    return w * u / (u.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def within_wider_rows(o, w, g):
    return norms.gated_rms(o, w, 1e-5, torch.cat([g, o], -1)[..., : len(w)])


NORMS = {
    "positive": (elementwise.positive, phi, 1),
    "unit": (lambda x: norms.unit(x, 0.3), lambda x: 0.3 * x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt(), 1),
    "simplex": (norms.simplex, lambda x: phi(x) / phi(x).sum(-1, keepdim=True), 1),
    "layer": (
        lambda x, w: norms.layer(x, w, 2 * w, 1e-5),
        lambda x, w: normed(x - x.mean(-1, keepdim=True), w) + 2 * w,
        2,
    ),
    "rms": (lambda x, w: norms.rms(x, w, 1e-5), normed, 2),
    "swish": (lambda x, w, g: norms.rms(x, w, 1e-5, g), lambda x, w, g: normed(x, w) * F.silu(g), 3),
    "sigmoid": (lambda x, w, g: norms.rms(x, w, 1e-5, g, "sigmoid"), lambda x, w, g: normed(x, w) * g.sigmoid(), 3),
    "gated": (lambda x, w, g: norms.gated_rms(x, w, 1e-5, g), lambda x, w, g: normed(x * F.silu(g), w), 3),
    "gate within wider rows": (within_wider_rows, lambda x, w, g: normed(x * F.silu(g), w), 3),
}
"""Functions of rows, a weight and a gate; their equations; and how many of the three they take."""


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 3, 64), (150, 33), (0, 4)], ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_norms_equal_their_equations(form, name, shape, dtype):
    torch.manual_seed(0)
    norm, equation, count = NORMS[name]
    inputs = [x.to(dtype) for x in (2 * torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape))[:count]]
    with record_kernels() as log:
        assert norm(*inputs).dtype is dtype
    assert log == {
        op: "compiled loop" if form == "compiled" and op in forms.CPU and inputs[0].numel() else "torch" for op in log
    }
    assert_near_float64(norm, equation, *inputs, limit=TOLERANCES[dtype])


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
    assert_near(got, want, TOLERANCES[BF16 if {BF16, F16} & {*dtypes, dtype} else F32])


def test_rows_that_vanish():
    """Zeros, and elu + 1 of what is far below zero: finite, with finite gradients."""
    for norm, x in ((norms.unit, torch.zeros(2, 8)), (norms.simplex, torch.full((2, 8), -90.0))):
        assert all(bool(y.isfinite().all()) for y in differentiated(norm, x))


def test_features_far_from_zero_and_about_it(form):
    """The slope of φ is 1 at 0, and of NaN NaN."""
    x = torch.tensor([-1e4, -100.0, 100.0, 1e4, 0.0, float("nan"), -1.0], requires_grad=True)
    y = elementwise.positive(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y[:4], torch.tensor([0.0, 0.0, 101.0, 10001.0]), rtol=0, atol=1e-43)
    want = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, float("nan"), 1 / torch.e])
    torch.testing.assert_close(slope, want, equal_nan=True)
