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
    "summed": (lambda f, o, w, y: f.summed(o, y, w, 1e-5), 3),
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
    *(("summed", dtypes, None) for dtypes in ((F32, F64), (F64, BF16))),
    ("summed", (F32, BF16), BF16),
]


@pytest.mark.parametrize(("name", "dtypes", "dtype"), MIXED, ids=str)
def test_inputs_and_results_of_several_dtypes(name, dtypes, dtype):
    """As of a stream in float32 and a branch in bfloat16, whose norm is for products."""
    torch.manual_seed(0)
    (x, *others), w = (torch.randn(70, 33).to(of) for of in dtypes), torch.randn(33)

    def norm(form):
        if name == "summed":
            return differentiated(lambda x, y, w: form.summed(x, y, w, 1e-5, dtype), x, *others, w)
        return differentiated(lambda x, w, *gate: form.rms(x, w, 1e-5, *gate, dtype=dtype), x, w, *others)

    got, want = norm(norms), norm(naive)
    assert [x.dtype for x in got] == [x.dtype for x in want]
    assert name != "summed" or torch.equal(got[0], want[0])
    close(got, want, BF16 if {BF16, F16} & {*dtypes, dtype} else F32)


@pytest.mark.parametrize("read", [0, 1], ids=["sum", "norm"])
def test_only_one_of_sum_and_norm_is_read(read):
    torch.manual_seed(0)
    inputs = torch.randn(5, 8), torch.randn(5, 8), torch.randn(8)

    def by(form):
        return lambda *x: form(*x, 1e-5)[read]

    for leaf in range(2 + read):
        gradients = []
        for form in (norms.summed, naive.summed):
            leaves = [x.clone().requires_grad_() for x in inputs]
            (by(form)(*leaves) ** 2).sum().backward()
            gradients.append(leaves[leaf].grad)
        torch.testing.assert_close(*gradients)


def test_a_gradient_that_is_handed_on_is_written_to_by_nobody():
    """Of equal dtypes the two gradients are one tensor."""
    x, y, w = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True), torch.randn(3)
    s, n = norms.summed(x, y, w, 1e-5)
    norms.summed(s + n, y, w, 1e-5)[1].sum().backward()
    x_, y_ = (z.detach().clone().requires_grad_() for z in (x, y))
    s, n = naive.summed(x_, y_, w, 1e-5)
    naive.summed(s + n, y_, w, 1e-5)[1].sum().backward()
    torch.testing.assert_close((x.grad, y.grad), (x_.grad, y_.grad))


def test_gradients_that_are_one_number():
    """As of a sum: it lies in memory once."""
    gradients = []
    for form in (norms.summed, naive.summed):
        x, y, w = (z.requires_grad_() for z in (torch.ones(3, 8), torch.arange(24.0).view(3, 8), torch.ones(8)))
        s, n = form(x, y, w, 1e-5)
        gradients.append(torch.autograd.grad([s.sum(), n.sum()], [x, y, w]))
    torch.testing.assert_close(*gradients)
