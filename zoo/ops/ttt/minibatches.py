"""Test-time training of a linear model, a mini-batch at a time: matmuls within it, W alone goes from one to the next.

With the slopes e_s = η_s ∂ℓ_s/∂(Wᵀ k_s) of a mini-batch, all at the W before it, G_t = Σ_{s ≤ t} k_s e_sᵀ is never
written out (the dual form: Sun et al. 2024, arXiv:2407.04620, section 2.5):

    z_t = Wᵀ q_t − c_t Σ_{s ≤ t} (q_t · k_s) e_s,    W ← W − c_b Σ_s k_s e_sᵀ

Where a mini-batch is under way in some rows, steps move to the right by as many as came, so that all begin together.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.ops import forms, precision
from zoo.ops.kernel_log import log_kernel
from zoo.ops.step_by_step import finite
from zoo.ops.ttt.naive import slopes, ttt_linear_naive


@forms.computes(ttt_linear_naive)
def ttt_linear(q, k, y, rate, step, weight, bias, W, under_way=None, mask=None, *, size, eps=1e-6):  # type: ignore[no-untyped-def]
    """Masked steps may hold anything finite.

    Raises:
        ValueError: `size` is less than 1.
    """
    if size < 1:
        raise ValueError(f"ttt_linear: size is {size}, expected 1 at least")
    log_kernel("ttt", "mini-batches")
    given = q, k, y, rate, step, weight, bias, W
    if q.shape[2] > 1:
        with precision.no_autocast(q.device):
            wide = precision.promote(*given, *(under_way or ())[:1])
            before = under_way and (under_way[0].to(wide), under_way[1])
            z, *after = in_minibatches(*(x.to(wide) for x in given), before, mask, size, eps)
        if finite(z, *after[:2]):
            return z.to(y.dtype), tuple(after)
    return ttt_linear_naive(*given, under_way, mask, size=size, eps=eps)


def in_minibatches(
    q: Tensor,
    k: Tensor,
    y: Tensor,
    rate: Tensor,
    step: Tensor,
    weight: Tensor,
    bias: Tensor,
    W: Tensor,
    under_way: tuple[Tensor, Tensor] | None,
    mask: Bool[Tensor, "B T"] | None,
    size: int,
    eps: float,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"], Float[Tensor, "B H K V"], Int[Tensor, " B"]]:
    """z, and the three of what comes next."""
    B, H, T, K = q.shape
    G, count = (torch.zeros_like(W), W.new_zeros(B, dtype=torch.long)) if under_way is None else under_way
    N = -(-T // size) if under_way is None else -(-(T + size - 1) // size)
    valid = T if mask is None else mask.sum(1, keepdim=True)
    at = torch.arange(N * size, device=W.device) - count[:, None]  # which step stands there
    inside = ((at >= 0) & (at < valid)).view(B, 1, N, size, 1)
    lines = torch.cat([q, k, y, rate[..., None], step.expand(B, H, T)[..., None]], dim=-1)
    lines = F.pad(lines, (0, 0, 0, N * size - T)) if under_way is None else _taken(lines, at.clamp(0, T - 1))
    Q, K_, Y, rate, step = lines.unflatten(2, (N, size)).split([K, K, y.shape[-1], 1, 1], dim=-1)
    rate, full = torch.where(inside, rate, 0), inside[..., -1:, :]  # where the last step is there, all are
    first, weight, bias, before, written = G, weight[:, None], bias[:, None], [], []
    for n in range(N):
        before.append(W)
        written.append(rate[:, :, n] * slopes(K_[:, :, n] @ W, Y[:, :, n], weight, bias, eps))
        G = G + K_[:, :, n].mT @ written[-1]
        W = W - torch.where(full[:, :, n], step[:, :, n, -1:], 0) * G
        G = torch.where(full[:, :, n], 0, G)
    pairs = (Q @ K_.mT).tril() @ torch.stack(written, dim=2)
    if under_way is not None:
        pairs = pairs + F.pad(Q[:, :, :1] @ first[:, :, None], (0, 0, 0, 0, 0, N - 1))
    z = (Q @ torch.stack(before, dim=2) - step * pairs).flatten(2, 3)
    z = z[:, :, :T] if under_way is None else _taken(z, torch.arange(T, device=W.device) + count[:, None])
    return z, W, G, ((count[:, None] + valid) % size)[:, 0]


def _taken(x: Float[Tensor, "B H S F"], at: Int[Tensor, "B T"]) -> Float[Tensor, "B H T F"]:
    """The steps `at` of each row."""
    return x.gather(2, at[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
