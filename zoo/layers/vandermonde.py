"""Powers of a diagonal matrix against coefficients or against a sequence: the kernel and the state of S4D.

Written out they take H·N·L exponentials. By splitting the power, with l = m·i + j and a^l = (a^m)^i a^j, they take
H·N·2√L, and one real batched matmul over the modes: Re Σ_n x_n y_n = [Re x, −Im x] · [Re y, Im y].
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor

from zoo.ops.kernel_log import logged
from zoo.ops.precision import no_autocast
from zoo.ops.step_by_step import finite_or


def evaluate_naive(c: Complex[Tensor, "B H N"], log_a: Complex[Tensor, "H N"], L: int) -> Float[Tensor, "B H L"]:
    """2 Re Σ_n c_n a_n^l for l = 0..L−1 (Gu et al. 2022, arXiv:2206.11893, eq. 9)."""
    return 2 * torch.einsum("bhn,hnl->bhl", c, _all_powers(log_a, L)).real


def accumulate_naive(u: Float[Tensor, "B L H"], log_a: Complex[Tensor, "H N"]) -> Complex[Tensor, "B H N"]:
    """Σ_s a^{L−1−s} u_s: what L inputs leave in the state."""
    powers = _all_powers(log_a, u.shape[1]).flip(-1)
    return torch.einsum("blh,hnl->bhn", u.to(powers.dtype), powers)


def _all_powers(log_a: Tensor, L: int) -> Tensor:
    return torch.exp(log_a[..., None] * torch.arange(L, device=log_a.device))


@logged("vandermonde")
def evaluate(c: Complex[Tensor, "B H N"], log_a: Complex[Tensor, "H N"], L: int) -> Float[Tensor, "B H L"]:
    """See `evaluate_naive`."""
    B, H, N = c.shape
    inner, outer = _powers(log_a, L)  # (H, N, m), (H, N, k)
    k, m = outer.shape[-1], inner.shape[-1]
    x = (c[..., None] * outer).permute(1, 0, 3, 2).reshape(H, B * k, N)
    with no_autocast(c.device):
        y = torch.cat([x.real, -x.imag], dim=2) @ torch.cat([inner.real, inner.imag], dim=1)
        y = 2 * y.view(H, B, k * m)[..., :L].transpose(0, 1)
        return finite_or(y, lambda: evaluate_naive(c, log_a, L))


@logged("vandermonde")
def accumulate(u: Float[Tensor, "B L H"], log_a: Complex[Tensor, "H N"]) -> Complex[Tensor, "B H N"]:
    """See `accumulate_naive`. In the precision of a."""
    B, L, H = u.shape
    inner, outer = _powers(log_a, L)
    k, m = outer.shape[-1], inner.shape[-1]
    # Zeros in front, so that the last input meets a^0.
    v = F.pad(u.to(log_a.real.dtype), (0, 0, k * m - L, 0)).view(B, k, m, H).permute(3, 0, 1, 2).reshape(H, B * k, m)
    backwards = inner.flip(-1).transpose(1, 2)  # (H, m, N)
    with no_autocast(u.device):
        sums = (v @ torch.cat([backwards.real, backwards.imag], dim=2)).view(H, B, k, -1)
        state = torch.einsum("hbkn,hnk->bhn", torch.complex(*sums.chunk(2, dim=-1)), outer.flip(-1))
        return finite_or(state, lambda: accumulate_naive(u, log_a))


def _powers(log_a: Tensor, L: int) -> tuple[Tensor, Tensor]:
    """a^j for j < m and a^{m i} for i < k, with k·m ≥ L and m about √L."""
    m = math.isqrt(L - 1) + 1
    k = -(-L // m)
    j, i = torch.arange(m, device=log_a.device), torch.arange(k, device=log_a.device)
    return _exp(log_a[..., None] * j), _exp(log_a[..., None] * (m * i))


def _exp(z: Tensor) -> Tensor:
    """e^z by real functions, which torch vectorises: a fifth of the time of its complex exp on a CPU."""
    return torch.polar(z.real.exp(), z.imag)
