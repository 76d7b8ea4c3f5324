"""S4's systems in real coordinates, against dense complex matrices and loops."""

import pytest
import torch

from zoo.layers import dplr
from zoo.ops.cauchy.naive import system

H, M, B = 3, 4, 2


def normal(*shape):
    return torch.randn(*shape, dtype=torch.complex128)


def draw(R):
    """A stable system in float64: a, p, b."""
    torch.manual_seed(0)
    a = -torch.rand(H, M, dtype=torch.float64) - 3j * torch.rand(H, M, dtype=torch.float64)
    return a, 0.5 * normal(R, H, M), normal(H, M)


def real(x):
    return torch.view_as_real(x).flatten(-2)


@pytest.mark.parametrize("R", [1, 2])
def test_real_matrices(R):
    """A step by them, against the dense solve over both halves of every pair."""
    a, p, b = draw(R)
    A, B_bar = system(a, p, b)
    x, u = normal(B, H, M), torch.randn(B, H, dtype=torch.float64)
    both = torch.cat([x, x.conj()], dim=-1)
    want = (torch.einsum("hmn,bhn->bhm", A, both) + B_bar * u[..., None])[..., :M]
    A_real, B_real = dplr.transition(a, p, b)
    torch.testing.assert_close(torch.einsum("hmn,bhn->bhm", A_real, real(x)) + B_real * u[..., None], real(want))


@pytest.mark.parametrize("T", [1, 2, 5, 31, 32, 33, 100])
def test_powers(T):
    """Rows c Ā^t, sums Σ Ā^{T−1−s} b u_s and Ā^n x, against loops."""
    (a, p, b), c = draw(1), normal(2, H, M)
    A, B_bar = dplr.transition(a, p, b)
    P = dplr.powers(A, T)
    row, rows = real(c), []
    for _ in range(T):
        rows.append(row)
        row = torch.einsum("khm,hmn->khn", row, A)
    torch.testing.assert_close(dplr.rows(P, real(c), T), torch.stack(rows).permute(2, 0, 1, 3))
    u, x = torch.randn(B, T, H, dtype=torch.float64), torch.randn(B, H, 2 * M, dtype=torch.float64)
    n = torch.tensor([T, T // 2])
    total, state = torch.zeros_like(x), [x.clone()]
    for t in range(T):
        total = torch.einsum("hmn,bhn->bhm", A, total) + B_bar * u[:, t, :, None]
        state.append(torch.einsum("hmn,bhn->bhm", A, state[-1]))
    torch.testing.assert_close(dplr.accumulate(P, B_bar, u), total)
    want = torch.stack([state[int(k)][row] for row, k in enumerate(n)])
    torch.testing.assert_close(dplr.power_apply(P, n, x), want)


def test_rows_read_states():
    c, x = normal(2, H, M), normal(B, H, M)
    want = torch.einsum("khm,bhm->bkh", c, x).real
    torch.testing.assert_close(torch.einsum("khn,bhn->bkh", dplr.row(c), real(x)), want)
    torch.testing.assert_close(dplr.unrow(dplr.row(c)), c)
