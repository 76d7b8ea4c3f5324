"""Vandermonde products with every power a_n^l written out: H·N·L exponentials."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def evaluate(c: Complex[Tensor, "B H N"], log_a: Complex[Tensor, "H N"], L: int) -> Float[Tensor, "B H L"]:
    """2 Re Σ_n c_n a_n^l for l = 0..L−1 (Gu et al. 2022, arXiv:2206.11893, eq. 9)."""
    return 2 * torch.einsum("bhn,hnl->bhl", c, _powers(log_a, L)).real


def accumulate(u: Float[Tensor, "B L H"], log_a: Complex[Tensor, "H N"]) -> Complex[Tensor, "B H N"]:
    """Σ_s a^{L−1−s} u_s: what L inputs leave in the state."""
    powers = _powers(log_a, u.shape[1]).flip(-1)
    return torch.einsum("blh,hnl->bhn", u.to(powers.dtype), powers)


def _powers(log_a: Tensor, L: int) -> Tensor:
    return torch.exp(log_a[..., None] * torch.arange(L, device=log_a.device))
