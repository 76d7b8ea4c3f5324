"""The diagonal scan in chunks equals the loop: values, final state, gradients, FLOP counts."""

import pytest
import torch

from zoo.ops import flops
from zoo.ops.diagonal_scan import scan, scan_naive

from .conftest import assert_same

DTYPES = [torch.float64, torch.complex128]
SHAPES = [(2, 1, 3), (2, 2, 3), (3, 13, 4), (1, 16, 2), (2, 37, 2, 3), (1, 101), (2, 3, 300)]


def inputs(shape, dtype):
    """a with |a| ≤ 1, some of them 0 and 1; b; h0."""
    torch.manual_seed(0)
    a = torch.rand(shape, dtype=torch.float64)
    a = torch.where(a < 0.1, 0.0, torch.where(a > 0.9, 1.0, a)).to(dtype)
    if dtype.is_complex:
        a = a * torch.exp(1j * torch.randn(shape, dtype=torch.float64))
    return [a, torch.randn(shape, dtype=dtype), torch.randn(shape[0], *shape[2:], dtype=dtype)]


@pytest.mark.parametrize("wide", [1, 1 << 14], ids=["one_chunk", "many_chunks"])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_loop(monkeypatch, shape, dtype, initial, wide):
    monkeypatch.setattr("zoo.ops.diagonal_scan.chunked.WIDE", wide)

    def real(form):
        return lambda *x: torch.view_as_real(form(*x)) if dtype.is_complex else form(*x)

    assert_same(real(scan), real(scan_naive), *inputs(shape, dtype)[: 3 if initial else 2], tolerance=1e-12)


def test_accepts_strided_inputs():
    """Transposed views and expanded tensors, forward and backward."""
    a, b = torch.rand(3, 2, 9, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    assert_same(*(lambda a, b, f=f: f(a.transpose(1, 2), b.expand(3, 9, 2)) for f in (scan, scan_naive)), a, b)


def test_long_decay_underflows_to_zero_not_to_nan():
    a = torch.full((1, 4096, 2), 1e-3, requires_grad=True)
    h = scan(a, torch.ones_like(a))
    h.sum().backward()
    assert h.isfinite().all()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_conjugate_views(dtype):
    a, b = (torch.randn(2, 9, 3, dtype=dtype).div(2).requires_grad_() for _ in range(2))
    fast, slow = scan(a.conj(), b.conj()), scan_naive(a.conj(), b.conj())
    torch.testing.assert_close(fast, slow)
    got, expected = (torch.autograd.grad(x.conj().imag.sum(), (a, b)) for x in (fast, slow))
    torch.testing.assert_close(got, expected)


def test_rejects_dtypes_that_differ():
    with pytest.raises(ValueError, match="make them equal"):
        scan(torch.rand(2, 5, 3), torch.rand(2, 5, 3).double())


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float64, 1), (torch.complex128, 4)])
def test_counts_the_naive_work(dtype, factor):
    args = [x.requires_grad_() for x in inputs((2, 10, 3), dtype)]
    with flops.Counter() as outer, flops.Counter() as counter:
        h = scan(*args)
    with outer:
        h.abs().sum().backward()
    scan(*args)
    assert counter.by_name == {"diagonal_scan": 2 * 60 * factor}
    assert outer.total == 6 * 60 * factor
