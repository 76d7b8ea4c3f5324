"""Bilinear DPLR systems: the Cauchy kernel and the real-coordinate steps against dense complex matrices."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo.ops import cauchy, flops, forms
from zoo.ops.cauchy.naive import system
from zoo.ops.kernel_log import record_kernels

H, M, B = 3, 4, 2
SIZES = pytest.mark.parametrize(("R", "K", "L"), [(1, 1, 1), (1, 1, 2), (1, 2, 7), (1, 1, 8), (2, 1, 8), (3, 2, 9)])


def draw(R=1, K=1, seed=0):
    """A stable system in float64: a, p, b, c."""
    torch.manual_seed(seed)

    def z(*shape):
        return torch.randn(*shape, dtype=torch.complex128)

    a = -torch.rand(H, M, dtype=torch.float64) - 1j * 3 * torch.rand(H, M, dtype=torch.float64)
    return [x.requires_grad_() for x in (a, 0.5 * z(R, H, M), z(H, M), z(K, H, M))]


def real(x):
    return torch.view_as_real(x).flatten(-2)


@SIZES
def test_kernel_and_its_gradients(form, R, K, L):
    parts = draw(R, K)
    with record_kernels() as kernels:
        fast = cauchy.kernel(*parts, L)
    assert kernels == {"cauchy": "compiled loop" if form == "compiled" else "torch"}
    slow = cauchy.kernel_naive(*parts, L)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(fast)
    gradients = [torch.autograd.grad((K_ * weight).sum(), parts) for K_ in (fast, slow)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_more_frequencies_than_a_loop_takes_at_once(form, monkeypatch):
    """And in float32, against torch's form in float64."""
    parts = draw(K=2)
    weight = torch.randn(2, H, 1031, dtype=torch.float64)
    found = []
    for dtype in (torch.complex64, torch.complex128):
        own = [x.detach().to(dtype).requires_grad_() for x in parts]
        if dtype is torch.complex128:
            monkeypatch.setattr(forms, "available", lambda: False)
        fast = cauchy.kernel(*own, 1031)
        found.append([fast, *torch.autograd.grad((fast * weight).sum(), own)])
    for low, high in zip(*found, strict=True):
        assert (low - high).norm() < 1e-5 * high.norm()


@pytest.mark.parametrize("R", [1, 2])
def test_real_matrices(R):
    """A step by them, against the dense solve over both halves of every pair."""
    a, p, b, _ = draw(R)
    A, B_bar = system(a, p, b)
    x, u = torch.randn(B, H, M, dtype=torch.complex128), torch.randn(B, H, dtype=torch.float64)
    both = torch.cat([x, x.conj()], dim=-1)
    want = (torch.einsum("hmn,bhn->bhm", A, both) + B_bar * u[..., None])[..., :M]
    A_real, B_real = cauchy.transition(a, p, b)
    torch.testing.assert_close(torch.einsum("hmn,bhn->bhm", A_real, real(x)) + B_real * u[..., None], real(want))


@pytest.mark.parametrize("T", [1, 2, 5, 31, 32, 33, 100])
def test_powers(T):
    """Rows c Ā^t, sums Σ Ā^{T−1−s} b u_s and Ā^n x, against loops."""
    a, p, b, c = (x.detach() for x in draw(K=2))
    A, B_bar = cauchy.transition(a, p, b)
    P = cauchy.powers(A, T)
    row, rows = real(c), []
    for _ in range(T):
        rows.append(row)
        row = torch.einsum("khm,hmn->khn", row, A)
    torch.testing.assert_close(cauchy.rows(P, real(c), T), torch.stack(rows).permute(2, 0, 1, 3))
    u, x = torch.randn(B, T, H, dtype=torch.float64), torch.randn(B, H, 2 * M, dtype=torch.float64)
    n = torch.tensor([T, T // 2])
    total, state = torch.zeros_like(x), [x.clone()]
    for t in range(T):
        total = torch.einsum("hmn,bhn->bhm", A, total) + B_bar * u[:, t, :, None]
        state.append(torch.einsum("hmn,bhn->bhm", A, state[-1]))
    torch.testing.assert_close(cauchy.accumulate(P, B_bar, u), total)
    want = torch.stack([state[int(k)][row] for row, k in enumerate(n)])
    torch.testing.assert_close(cauchy.power_apply(P, n, x), want)


@pytest.mark.parametrize("backward", [False, True])
def test_counts_the_same_in_either_form(form, backward):
    """Four real products of (K + R)(1 + R) × M × (L/2 + 1), an FFT per kernel, and twice the products backward."""
    parts, L = draw(K=2), 8
    with flops.Counter() as own, FlopCounterMode(display=False) as products:
        y = cauchy.kernel(*parts, L)
        if backward:
            y.sum().backward()
    sums = 4 * 2 * H * (2 + 1) * (1 + 1) * M * (L // 2 + 1)
    assert own.total + products.get_total_flops() == 2 * H * flops.rfft(L) + sums * (3 if backward else 1)


def test_rows_read_states():
    c, x = torch.randn(2, H, M, dtype=torch.complex128), torch.randn(B, H, M, dtype=torch.complex128)
    want = torch.einsum("khm,bhm->bkh", c, x).real
    torch.testing.assert_close(torch.einsum("khn,bhn->bkh", cauchy.row(c), real(x)), want)
    torch.testing.assert_close(cauchy.unrow(cauchy.row(c)), c)
