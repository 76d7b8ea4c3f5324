"""The systems of `zoo.ops.cauchy` as matrices in real coordinates (Re x_1, Im x_1, Re x_2, …) of N = 2M numbers."""

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor

LEAF = 32
"""Steps whose powers of Ā are written out side by side before sums are combined in pairs."""


def transition(
    a: Complex[Tensor, "H M"], p: Complex[Tensor, "R H M"], b: Complex[Tensor, "H M"]
) -> tuple[Float[Tensor, "H N N"], Float[Tensor, "H N"]]:
    """Ā and B̄ as real matrices, from (I − A/2)^{−1} = diag(d) − g p* diag(d) with d = 1/(1 − a/2) (Woodbury)."""
    (H, M), d = a.shape, 1 / (1 - a / 2)
    small = torch.einsum("rhm,hm,shm->hrs", p.conj(), d, p).real  # half of the full p* d p, which is 2 Re of it
    inverse = torch.linalg.inv(torch.eye(len(p), dtype=small.dtype, device=a.device) + small).to(a.dtype)
    g = torch.einsum("hm,rhm,hrs->shm", d, p / 2, inverse)
    basis = torch.eye(2 * M, dtype=a.real.dtype, device=a.device).view(2 * M, 1, M, 2)
    x = torch.view_as_complex(basis).expand(-1, H, -1)
    columns, column = d * (x + a * x / 2 - _project(p, p / 2, x)), (d * b)[None]
    columns, column = columns - _project(p, g, columns), column - _project(p, g, column)
    A = torch.view_as_real(columns).reshape(2 * M, H, 2 * M).permute(1, 2, 0).contiguous()
    return A, torch.view_as_real(column[0]).reshape(H, 2 * M)


def _project(p: Tensor, g: Tensor, x: Tensor) -> Tensor:
    """g p* x over conjugate pairs."""
    along = 2 * torch.einsum("rhm,bhm->brh", p.conj(), x).real
    return torch.einsum("rhm,brh->bhm", g, along.to(x.dtype))


def row(c: Complex[Tensor, "K H M"]) -> Float[Tensor, "K H N"]:
    """r with r · (Re x_1, Im x_1, …) = Re(c x). The system's output, over both halves of every pair, is twice that."""
    return torch.view_as_real(c.conj().resolve_conj()).flatten(2)


def unrow(r: Float[Tensor, "K H N"]) -> Complex[Tensor, "K H M"]:
    """The c of a row."""
    return torch.view_as_complex(r.unflatten(2, (-1, 2)).contiguous()).conj().resolve_conj()


def powers(A: Float[Tensor, "H N N"], T: int) -> list[Tensor]:
    """Ā, Ā², Ā⁴, … as many as T in binary has digits."""
    found = [A]
    for _ in range(T.bit_length() - 1):
        found.append(found[-1] @ found[-1])
    return found


def power_apply(P: list[Tensor], n: Int[Tensor, " B"], x: Float[Tensor, "B H N"]) -> Float[Tensor, "B H N"]:
    """Ā^n x, n of each row's own, from `powers`."""
    for bit, A in enumerate(P):
        x = torch.where((n >> bit & 1 == 1)[:, None, None], torch.einsum("hmn,bhn->bhm", A, x), x)
    return x


def rows(P: list[Tensor], c: Float[Tensor, "K H N"], T: int) -> Float[Tensor, "H T K N"]:
    """c Ā^t for t < T, by doubling."""
    found = c.transpose(0, 1)  # (H, K, N), later (H, t K, N)
    for A in P:
        if found.shape[1] >= T * len(c):
            break
        found = torch.cat([found, found @ A], dim=1)
    return found[:, : T * len(c)].unflatten(1, (T, len(c)))


def accumulate(P: list[Tensor], b: Float[Tensor, "H N"], u: Float[Tensor, "B T H"]) -> Float[Tensor, "B H N"]:
    """Σ_s Ā^{T−1−s} b u_s: within leaves by written-out powers, then in pairs."""
    T = u.shape[1]
    leaf = 1 << min((T - 1).bit_length(), LEAF.bit_length() - 1)
    levels = max(0, (-(-T // leaf) - 1).bit_length())
    u = F.pad(u, (0, 0, (leaf << levels) - T, 0))  # zeros in front leave no trace
    columns = b[..., None]  # (H, N, t)
    for A in P[: leaf.bit_length() - 1]:
        columns = torch.cat([columns, A @ columns], dim=2)
    v = torch.einsum("hnt,bcth->hbcn", columns.flip(2), u.unflatten(1, (1 << levels, leaf)))
    for A in P[leaf.bit_length() - 1 :]:
        if v.shape[2] == 1:
            break
        v = torch.einsum("hmn,hbcn->hbcm", A, v[:, :, 0::2]) + v[:, :, 1::2]
    return v[:, :, 0].transpose(0, 1)
