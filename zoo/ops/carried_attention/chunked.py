"""Attention to keys that every later step changes, in chunks: keys are carried along chunk by chunk.

Within a chunk of C steps, with all keys K before it as its start finds them, the scores of its queries are

    Q' K^⊤,    q'_t = A_1 ⋯ A_t q_t      (keys before it)
    P_tj = q_t·A_t ⋯ A_{j+1} k_j          (its own keys, j ≤ t)

in one softmax, and K ← A_C ⋯ A_1 K, to which its own keys come as its end finds them. Products of the A_t of path
attention have the UT form (Yang et al. 2025, arXiv:2505.16381, section 4): with S = (I + tril(β W Wᵀ, −1))^{−1} β,

    Y = S W,    D = S tril(W Kᵀ, −1),    Q' = Q − tril(Q Wᵀ) Y,    P = Q Kᵀ − tril(Q Wᵀ) D
    K ← K − K Yᵀ W  (before it),    K ← K − Dᵀ W  (its own)

Those of Wall attention are diagonal: Q' = Q ⊙ e^{b_t} with b_t = g_1 + ... + g_t. Every exponent is a sum of log decays
over a span of steps, hence ≤ 0; P is put together from halves, as in `zoo.ops.linear_attention.chunked`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms, precision
from zoo.ops.carried_attention import naive
from zoo.ops.delta_rule.chunked import inverse
from zoo.ops.kernel_log import logged
from zoo.ops.linear_attention.chunked import doubled, halves, segments, split
from zoo.ops.linear_attention.naive import check_shared, repeat
from zoo.ops.step_by_step import finite, step_by_step

CHUNK = 64
"""Steps per chunk, at most."""


@forms.computes(naive.path_attention_naive)
@logged("carried_attention")
def path_attention(q, k, v, w, beta, fade=None, valid=None, state=None):  # type: ignore[no-untyped-def]
    """For any T, in float32 at least, but for products with q and v where q, k and v are bfloat16.

    Raises:
        ValueError: heads of q do not share those of k and v evenly.
    """
    for x in (k, v):
        check_shared("path_attention", q, x)
    steps = q, k, v, w, beta, fade, valid
    if q.shape[2] == 1:
        return naive.path_attention_naive(*steps, state)
    wide, H = naive.wide(state, q, k, v, w, beta, fade), q.shape[1]
    with precision.no_autocast(q.device):
        Q, K, W, b = (split(x.to(wide), min(CHUNK, q.shape[2])) for x in (q, k, w, beta[..., None]))
        S = inverse((b * (W @ W.mT)).tril(-1)) * b.mT
        Y, D = S @ W, S @ (W @ K.mT).tril(-1)
        W_q, Y_q, D_q, K_q = (repeat(x, H) for x in (W, Y, D, K))
        QW, erased = (Q @ W_q.mT).tril(), Y.mT @ W

        def carry(keys: Tensor, n: int) -> Tensor:
            return keys - keys @ erased[:, :, n]

        reads, pairs = Q - QW @ Y_q, Q @ K_q.mT - QW @ D_q
        o, new = _attend(q, k, v, reads, pairs, K - D.mT @ W, carry, fade, valid, state)
    if finite(o, new["k"]):
        return o, new
    return step_by_step(naive.path_attention_naive, steps, state)


@forms.computes(naive.wall_attention_naive)
@logged("carried_attention")
def wall_attention(q, k, v, log_decay, fade=None, valid=None, state=None):  # type: ignore[no-untyped-def]
    """As `path_attention`."""
    for x in (k, v):
        check_shared("wall_attention", q, x)
    k = repeat(k, q.shape[1])
    steps = q, k, v, log_decay, fade, valid
    if q.shape[2] == 1:
        return naive.wall_attention_naive(*steps, state)
    wide, C = naive.wide(state, q, k, v, log_decay, fade), 1 << (min(CHUNK, q.shape[2]).bit_length() - 1)
    with precision.no_autocast(q.device):
        Q, K, g = (split(x.to(wide), C) for x in (q, k, log_decay))
        pairs, from_start, to_end = decayed_pairs(Q, K, g)
        kept = from_start[..., -1:, :].exp()

        def carry(keys: Tensor, n: int) -> Tensor:
            return keys * kept[:, :, n]

        o, new = _attend(q, k, v, from_start.exp() * Q, pairs, to_end.exp() * K, carry, fade, valid, state)
    if finite(o, new["k"]):
        return o, new
    return step_by_step(naive.wall_attention_naive, steps, state)


def decayed_pairs(
    q: Float[Tensor, "*N C K"], k: Float[Tensor, "*N C K"], g: Float[Tensor, "*N C K"]
) -> tuple[Float[Tensor, "*N C C"], Float[Tensor, "*N C K"], Float[Tensor, "*N C K"]]:
    """Σ_n q_tn k_jn e^{g_{j+1,n} + ... + g_tn}, j ≤ t, of a power of two of steps; log decays from the start and to the
    end."""
    pairs, total = (q * k).sum(-1)[..., None, None], g
    from_start, to_end, size = g, torch.zeros_like(g), 1
    while size < q.shape[-2]:
        later, earlier = halves(q, size)[1], halves(k, size)[0]
        across = (later * halves(from_start, size)[1].exp()) @ (earlier * halves(to_end, size)[0].exp()).mT
        first, second = pairs[..., 0::2, :, :], pairs[..., 1::2, :, :]
        pairs = torch.cat([F.pad(first, (0, size)), torch.cat([across, second], dim=-1)], dim=-2)
        from_start, to_end, total = doubled(from_start, to_end, total, size)
        size *= 2
    return pairs.squeeze(-3), from_start, to_end


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    reads: Float[Tensor, "B H N C K"],
    pairs: Float[Tensor, "B H N C C"],
    ends: Float[Tensor, "B G N C K"],
    carry: Callable[[Tensor, int], Tensor],
    fade: Tensor | None,
    valid: Tensor | None,
    state: Any,
) -> tuple[Float[Tensor, "B H T V"], Any]:
    """Chunk after chunk, from Q' as `reads`, P as `pairs` and a chunk's own keys as its end finds them as `ends`."""
    (_, H, T, d), C, wide, outputs = q.shape, pairs.shape[-1], pairs.dtype, []
    dtype = torch.bfloat16 if q.dtype == k.dtype == v.dtype == torch.bfloat16 else wide
    keys, values, valid, fade, faded = naive.start(k, v, wide, fade, valid, state)
    past, reads, pairs = keys.shape[2], (d**-0.5 * reads).to(dtype), d**-0.5 * pairs
    read = repeat(values, H).to(dtype)
    seen = torch.ones(C, C, dtype=torch.bool, device=q.device).tril()
    if valid is not None:
        own = split(valid[:, :, past:, None], C).mT  # (B, 1, N, 1, C)
        seen = seen & own | torch.eye(C, dtype=torch.bool, device=q.device)
    if fade is not None and faded is not None:
        fades, faded = split(fade.to(wide)[..., None], C), faded.to(wide)
        from_start, within = fades.cumsum(-2), segments(fades).squeeze(-1)  # to t: from the start, from behind j
        pairs = pairs + within
    pairs = pairs.masked_fill(~seen, float("-inf"))
    for n, first in enumerate(range(0, T, C)):
        c, S = min(C, T - first), past + first
        scores = (reads[:, :, n, :c] @ repeat(keys, H).to(dtype).mT).to(wide)
        if faded is not None:
            scores = scores + (faded[:, :, None] + from_start[:, :, n, :c])
        if valid is not None:
            scores = scores.masked_fill(~valid[:, :, None, :S], float("-inf"))
        weights = torch.cat([scores, pairs[:, :, n, :c, :c]], dim=-1).softmax(-1)
        outputs.append(weights.to(dtype) @ read[:, :, : S + c])
        keys = torch.cat([carry(keys, n), ends[:, :, n, :c]], dim=2)
        if faded is not None:
            faded = torch.cat([faded + from_start[:, :, n, -1], within[:, :, n, c - 1, :c]], dim=2)
    return torch.cat(outputs, dim=2).to(v.dtype), {"k": keys, "v": values, "valid": valid, "fade": faded}
