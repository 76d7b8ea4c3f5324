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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gated", [False, True])
def test_rms_in_another_dtype(gated, dtype):
    torch.manual_seed(0)
    inputs = [torch.randn(5, 33), torch.randn(33), torch.randn(5, 33)][: 3 if gated else 2]
    got, want = (
        differentiated(lambda o, w, *gate, by=by: by.rms(o, w, 1e-5, *gate, dtype=dtype), *inputs)
        for by in (norms, naive)
    )
    assert [x.dtype for x in got] == [x.dtype for x in want] == [dtype] + [torch.float32] * len(inputs)
    close(got, want, torch.bfloat16)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.bfloat16)], ids=str)
def test_of_two_widths(dtypes):
    torch.manual_seed(0)
    one, other = dtypes
    x, y, w = torch.randn(5, 33).to(one), torch.randn(5, 33).to(other), torch.randn(33)
    for get in (
        lambda form: differentiated(lambda x, y, w: form.summed(x, y, w, 1e-5), x, y, w),
        lambda form: differentiated(lambda x, w: form.rms(x, w, 1e-5, dtype=other), x, w),
    ):
        for ours, true in zip(get(norms), get(naive), strict=True):
            assert ours.dtype is true.dtype
            torch.testing.assert_close(ours, true, rtol=1e-6, atol=1e-6)


def test_sum_of_a_stream_and_a_branch():
    """Float32 plus bfloat16: the sum to the last bit, its norm for products, each gradient in its tensor's dtype."""
    torch.manual_seed(0)
    inputs = torch.randn(70, 33), torch.randn(70, 33).bfloat16(), torch.randn(33)
    got, want = (
        differentiated(lambda x, y, w, by=by: by.summed(x, y, w, None, 1e-5, torch.bfloat16), *inputs)
        for by in (norms, naive)
    )
    assert torch.equal(got[0], want[0])
    assert [x.dtype for x in got] == [x.dtype for x in want]
    close(got, want, torch.bfloat16)


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
