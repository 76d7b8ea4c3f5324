"""Test-time training with momentum and forgetting, a mini-batch at a time.

All slopes of a mini-batch are at the W before it, so with e_s = −2 θ_s ∂ℓ_s/∂(Wᵀ k_s) what is left is linear: from M
and S before its first step, with D_a and D_η the lower triangular matrices of Π_{s < r ≤ t} a_r and Π_{s < r ≤ t} η_r,
A_t and m_t the products from the first step to t, and P = D_a D_η,

    z_t = A_t Mᵀ q_t + (D_a m)_t Sᵀ q_t + Σ_{s ≤ t} P_ts (q_t · k_s) e_s

and the last row of each gives M and S behind the mini-batch. (Behrouz et al. 2025, arXiv:2501.00663, section 3.2.)
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.ops import forms, precision
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention.chunked import segments
from zoo.ops.step_by_step import finite
from zoo.ops.ttt.minibatches import cut, joined
from zoo.ops.ttt.naive import slopes, titans_linear_naive


@forms.computes(titans_linear_naive)
def titans_linear(  # type: ignore[no-untyped-def]
    q, k, y, rate, log_momentum, log_decay, weight, bias, M, under_way=None, mask=None, *, size, eps=1e-6
):
    """Masked steps may hold anything finite.

    Raises:
        ValueError: `size` is less than 1.
    """
    if size < 1:
        raise ValueError(f"titans_linear: size is {size}, expected 1 at least")
    log_kernel("ttt", "mini-batches")
    given = q, k, y, rate, log_momentum, log_decay, weight, bias, M
    if q.shape[2] > 1:
        with precision.no_autocast(q.device):
            wide = precision.promote(*given, *(under_way or ())[:2])
            before = under_way and (under_way[0].to(wide), under_way[1].to(wide), under_way[2])
            z, *after = in_minibatches(*(x.to(wide) for x in given), before, mask, size, eps)
        if finite(z, *after[:3]):
            return z.to(y.dtype), tuple(after)
    return titans_linear_naive(*given, under_way, mask, size=size, eps=eps)


def in_minibatches(
    q: Tensor,
    k: Tensor,
    y: Tensor,
    rate: Tensor,
    log_momentum: Tensor,
    log_decay: Tensor,
    weight: Tensor,
    bias: Tensor,
    M: Tensor,
    under_way: tuple[Tensor, Tensor, Tensor] | None,
    mask: Bool[Tensor, "B T"] | None,
    size: int,
    eps: float,
) -> tuple[Float[Tensor, "B H T V"], Tensor, Tensor, Tensor, Int[Tensor, " B"]]:
    """z, and the four to continue from."""
    T, K = q.shape[2:]
    S, W, count = (torch.zeros_like(M), M, None) if under_way is None else under_way
    gates = torch.stack([rate, log_momentum, log_decay], dim=-1)
    lines, inside, after = cut(torch.cat([q, k, y, gates], dim=-1), count, mask, size)
    Q, K_, Y, gates = lines.split([K, K, y.shape[-1], 3], dim=-1)
    rate, log_momentum, log_decay = torch.where(inside, gates, 0).split(1, dim=-1)
    by_momentum, by_decay = (segments(g).squeeze(-1).exp() for g in (log_momentum, log_decay))
    m, A = log_momentum.cumsum(3).exp(), log_decay.cumsum(3).exp()
    by_decay = torch.where(inside.mT, by_decay, 0)  # where no step is, no S joins M
    both, from_S = by_decay @ by_momentum, by_decay @ m
    keys_M, keys_S = (K_ * pairs[..., -1, :, None] for pairs in (both, by_momentum))
    weight, bias, starts, momenta, written = weight[:, None], bias[:, None], [], [], []
    for n in range(K_.shape[2]):
        starts.append(M)
        momenta.append(S)
        written.append(-2 * rate[:, :, n] * slopes(K_[:, :, n] @ W, Y[:, :, n], weight, bias, eps))
        M = A[:, :, n, -1:] * M + from_S[:, :, n, -1:] * S + keys_M[:, :, n].mT @ written[-1]
        S = m[:, :, n, -1:] * S + keys_S[:, :, n].mT @ written[-1]
        W = torch.where(inside[:, :, n, -1:], M, W)  # where the last step is there, all are
    z = A * (Q @ torch.stack(starts, dim=2)) + from_S * (Q @ torch.stack(momenta, dim=2))
    z = z + (both * (Q @ K_.mT)) @ torch.stack(written, dim=2)
    return joined(z, T, count), M, S, W, after
