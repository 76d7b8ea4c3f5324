"""Gated slot attention in two passes: the logits of the slots, and linear attention to their softmax.

    z_t = K_tᵀ q_t,    o_t = V_tᵀ softmax(z_t)

The second reads V, which decays along its keys, the slots: gated linear attention with softmax(z) for queries and w for
keys. K decays along its values instead. With b_t the log decays added up within a chunk of C steps, K the keys before
it,

    z_t = e^{b_t} ⊙ Kᵀ q_t + Σ_{s ≤ t} (q_t·k_s) e^{b_t − b_s} ⊙ w_s
    K ← K diag(e^{b_C}) + Σ_s k_s (e^{b_C − b_s} ⊙ w_s)ᵀ

in which products q_t·k_s are free of decays, and computed once. The sum over s is halved, as in
`zoo.ops.linear_attention`: every exponent is a sum of log decays, hence ≤ 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import precision
from zoo.ops.forms import computes
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention.chunked import doubled, halves, linear_attention, split
from zoo.ops.slot_attention import naive
from zoo.ops.step_by_step import finite

CHUNK = 64
"""Steps per chunk, at most; a power of two."""


@computes(naive.slot_attention)
def slot_attention(q, k, v, write, log_decay, state=None):  # type: ignore[no-untyped-def]
    """For any T; products of keys and queries in float32 at least."""
    log_kernel("slot_attention", "torch")
    if v.shape[2] == 1:
        return naive.slot_attention(q, k, v, write, log_decay, state)
    with precision.no_autocast(q.device):
        wide = precision.promote(q, k, v, write, log_decay, *(state or ()))
        K, V = (x.to(wide) for x in (naive.zero_slots(k, v, write) if state is None else state))
        C = min(CHUNK, 1 << (v.shape[2].bit_length() - 1))
        z, K = logits(*(x.to(wide) for x in (q, k, write, log_decay)), K, C)
        if not finite(z, K):
            return naive.slot_attention(q, k, v, write, log_decay, state)
        o, V = linear_attention(z.softmax(-1), write.to(wide), v, log_decay.to(wide), V)
    return o, (K, V)


def logits(
    q: Tensor, k: Tensor, w: Tensor, g: Tensor, K: Tensor, C: int
) -> tuple[Float[Tensor, "B H T M"], Float[Tensor, "B H K M"]]:
    """z and the final K, in chunks of C steps, a power of two."""
    T = q.shape[2]
    q, k, w, total = (split(x, C) for x in (q, k, w, g))  # (B, H, N, C, ·)
    from_start, to_end = total, torch.zeros_like(total)
    pairs = q @ k.mT
    z, size = pairs.diagonal(dim1=-2, dim2=-1)[..., None] * w, 1
    while size < C:
        # Of every block of 2·size steps, the pairs of a later step with an earlier one: (B, H, N, P, size, size).
        crossing = pairs.unflatten(-2, (-1, 2, size))[..., 1, :, :].unflatten(-1, (-1, 2, size))[..., 0, :]
        crossing = crossing.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
        read = halves(from_start, size)[1].exp() * (crossing @ (halves(to_end, size)[0].exp() * halves(w, size)[0]))
        earlier, later = halves(z, size)
        z = torch.stack([earlier, later + read], dim=-3).flatten(-4, -2)
        from_start, to_end, total = doubled(from_start, to_end, total, size)
        size *= 2
    before = []
    for added, kept in zip((k.mT @ (to_end.exp() * w)).unbind(2), total.exp().unbind(2), strict=True):
        before.append(K)
        K = K * kept + added
    z = z + from_start.exp() * (q @ torch.stack(before, dim=2))
    return z.flatten(2, 3)[:, :, :T], K
