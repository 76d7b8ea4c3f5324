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
    lines = torch.cat([q, k, y, rate[..., None], step.expand(B, H, T)[..., None]], dim=-1)
    lines, inside, after = cut(lines, None if under_way is None else under_way[1], mask, size)
    Q, K_, Y, rate, step = lines.split([K, K, y.shape[-1], 1, 1], dim=-1)
    rate, full = torch.where(inside, rate, 0), inside[..., -1:, :]  # where the last step is there, all are
    first = G = torch.zeros_like(W) if under_way is None else under_way[0]
    weight, bias, before, written = weight[:, None], bias[:, None], [], []
    for n in range(K_.shape[2]):
        before.append(W)
        written.append(rate[:, :, n] * slopes(K_[:, :, n] @ W, Y[:, :, n], weight, bias, eps))
        G = G + K_[:, :, n].mT @ written[-1]
        W = W - torch.where(full[:, :, n], step[:, :, n, -1:], 0) * G
        G = torch.where(full[:, :, n], 0, G)
    moved = (Q @ K_.mT).tril() @ torch.stack(written, dim=2)
    if under_way is not None:
        moved = moved + F.pad(Q[:, :, :1] @ first[:, :, None], (0, 0, 0, 0, 0, moved.shape[2] - 1))
    z = Q @ torch.stack(before, dim=2) - step * moved
    return joined(z, T, None if under_way is None else under_way[1]), W, G, after


def cut(
    x: Float[Tensor, "B H T F"], count: Int[Tensor, " B"] | None, mask: Bool[Tensor, "B T"] | None, size: int
) -> tuple[Float[Tensor, "B H N S F"], Bool[Tensor, "B 1 N S 1"], Int[Tensor, " B"]]:
    """x in mini-batches of `size` steps; which of those are valid steps of x; how many of the last one came.

    Where `count` steps of the first mini-batch came before, those of x begin behind them.
    """
    B, _, T, _ = x.shape
    past = torch.zeros(B, 1, dtype=torch.long, device=x.device) if count is None else count[:, None]
    valid = T if mask is None else mask.sum(1, keepdim=True)
    N = -(-(T if count is None else T + size - 1) // size)
    at = torch.arange(N * size, device=x.device) - past
    x = F.pad(x, (0, 0, 0, N * size - T)) if count is None else _taken(x, at.clamp(0, T - 1))
    inside = (at >= 0) & (at < valid)
    return x.unflatten(2, (N, size)), inside.view(B, 1, N, size, 1), ((past + valid) % size)[:, 0]


def joined(z: Float[Tensor, "B H N S F"], T: int, count: Int[Tensor, " B"] | None) -> Float[Tensor, "B H T F"]:
    """Of mini-batches that `cut` made, the steps."""
    z = z.flatten(2, 3)
    return z[:, :, :T] if count is None else _taken(z, torch.arange(T, device=z.device) + count[:, None])


def _taken(x: Float[Tensor, "B H S F"], at: Int[Tensor, "B T"]) -> Float[Tensor, "B H T F"]:
    """The steps `at` of each row."""
    return x.gather(2, at[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
