"""The diagonal scan, chunked and compiled, equals the loop: values, final state, gradients, FLOP counts."""

import pytest
import torch

from zoo.ops import flops, forms
from zoo.ops import official as kernels
from zoo.ops.diagonal_scan import scan, scan_naive, step

DTYPES = [torch.float64, torch.complex128]
SHAPES = [(2, 1, 3), (2, 2, 3), (3, 13, 4), (1, 16, 2), (2, 37, 2, 3), (1, 101), (2, 3, 300)]


@pytest.fixture(params=["compiled loop", "chunked"], autouse=True)
def form(request, monkeypatch):
    if request.param == "chunked":
        monkeypatch.setattr(forms, "supports", lambda *tensors: False)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, *DTYPES])
def test_which_form_ran(form, dtype):
    scan(torch.rand(1, 2, 3).to(dtype), torch.rand(1, 2, 3).to(dtype))
    assert kernels.used["diagonal_scan"] == form


def inputs(shape, dtype, *, initial=True):
    """a with |a| ≤ 1, some of them 0 and 1; b; h0 or None. All want gradients."""
    torch.manual_seed(0)
    a = torch.rand(shape, dtype=torch.float64)
    a = torch.where(a < 0.1, 0.0, torch.where(a > 0.9, 1.0, a)).to(dtype)
    if dtype.is_complex:
        a = a * torch.exp(1j * torch.randn(shape, dtype=torch.float64))
    b, h0 = torch.randn(shape, dtype=dtype), torch.randn(shape[0], *shape[2:], dtype=dtype)
    return [a.requires_grad_(), b.requires_grad_(), h0.requires_grad_() if initial else None]


@pytest.mark.parametrize("wide", [1, 1 << 14], ids=["one_chunk", "many_chunks"])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_loop(monkeypatch, shape, dtype, initial, wide):
    monkeypatch.setattr("zoo.ops.diagonal_scan.chunked.WIDE", wide)
    args = inputs(shape, dtype, initial=initial)
    wanted = [x for x in args if x is not None]
    fast, slow = scan(*args), scan_naive(*args)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(slow)
    for got, expected in zip(
        torch.autograd.grad(fast, wanted, cotangent), torch.autograd.grad(slow, wanted, cotangent), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", [1, 7])
def test_gradcheck(dtype, T):
    assert torch.autograd.gradcheck(scan, inputs((2, T, 2), dtype))


def test_pieces_continue_from_the_last_state():
    a, b, h0 = inputs((2, 20, 3), torch.float64)
    whole, h, pieces = scan(a, b, h0), h0, []
    for left, right in ((0, 7), (7, 8), (8, 20)):
        pieces.append(scan(a[:, left:right], b[:, left:right], h))
        h = pieces[-1][:, -1]
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(step(a[:, -1], b[:, -1], whole[:, -2]), whole[:, -1])


def test_accepts_strided_inputs():
    """Transposed views and expanded tensors, forward and backward."""
    a = torch.rand(3, 2, 9, dtype=torch.float64, requires_grad=True).transpose(1, 2)
    b = torch.ones((), dtype=torch.float64, requires_grad=True).expand(3, 9, 2)
    torch.testing.assert_close(scan(a, b), scan_naive(a, b))
    scan(a, b).sum().backward()


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


def test_works_without_data():
    a = torch.empty(2, 9, 3, device="meta", requires_grad=True)
    h = scan(a, a)
    h.sum().backward()
    assert h.shape == a.shape == a.grad.shape


def test_rejects_shapes_that_differ():
    with pytest.raises(ValueError, match="make them equal"):
        scan(torch.rand(2, 5, 1), torch.rand(2, 5, 3))


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float64, 1), (torch.complex128, 4)])
def test_counts_the_naive_work(dtype, factor):
    args = inputs((2, 10, 3), dtype)
    with flops.Counter() as outer, flops.Counter() as counter:
        h = scan(*args)
    with outer:
        h.abs().sum().backward()
    scan(*args)
    assert counter.by_name == {"diagonal_scan": 2 * 60 * factor}
    assert outer.total == 6 * 60 * factor
