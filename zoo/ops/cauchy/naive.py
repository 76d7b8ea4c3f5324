"""The DPLR system as the equations read: all N modes, dense matrices, one step after the other."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def system(
    a: Complex[Tensor, "H M"], p: Complex[Tensor, "R H M"], b: Complex[Tensor, "H M"]
) -> tuple[Complex[Tensor, "H N N"], Complex[Tensor, "H N"]]:
    """Ā and B̄ over (x, x̄)."""
    a, p, b = _both(a), _both(p), _both(b)
    A = torch.diag_embed(a) - torch.einsum("rhm,rhn->hmn", p, p.conj())
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return torch.linalg.solve(eye - A / 2, eye + A / 2), torch.linalg.solve(eye - A / 2, b[..., None])[..., 0]


def kernel(
    a: Complex[Tensor, "H M"],
    p: Complex[Tensor, "R H M"],
    b: Complex[Tensor, "H M"],
    c: Complex[Tensor, "K H M"],
    L: int,
) -> Float[Tensor, "K H L"]:
    """K_l = C Ā^l B̄ for l < L, summed over both halves of every pair, where c = C (I − Ā^L) is what is given."""
    A, B = system(a, p, b)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    C = torch.linalg.solve(eye - torch.linalg.matrix_power(A, L), _both(c).transpose(0, 1), left=False)  # (H, K, N)
    found = []
    for _ in range(L):
        found.append(torch.einsum("hkn,hn->kh", C, B).real)
        B = torch.einsum("hmn,hn->hm", A, B)
    return torch.stack(found, dim=-1)


def _both(x: Tensor) -> Tensor:
    return torch.cat([x, x.conj()], dim=-1)
