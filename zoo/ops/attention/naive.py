"""Softmax attention as the equation reads: softmax(q kᵀ / √d + bias) v (Vaswani et al. 2017, eq. 1).

With a sink z, the weights are e^s / (Σ e^s + e^z) of the scores s (gpt-oss 2025, arXiv:2508.10925, section 2.2).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.linear_attention.naive import repeat


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B J S V"],
    *,
    visible: Bool[Tensor, "#B #H #T S"] | None = None,
    causal: bool = False,
    bias: Float[Tensor, "#B #H #T S"] | None = None,
    sink: Float[Tensor, " H"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "B H T V"]:
    """Attention of T queries over S keys. With `causal`, query t sees keys up to t + S − T; `visible` narrows it.

    Heads of k, and of v, may be fewer than those of q; each then serves as many neighbouring query heads. A `sink` is a
    score for each head beside those of the keys, which takes its share of the weights and has no value. The output of a
    query that sees no key is 0.
    """
    k, v = repeat(k, q.shape[1]), repeat(v, q.shape[1])
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    seen = allowed(q, k, visible, causal)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    if sink is not None:
        beside = sink.to(scores.dtype)[:, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, beside], dim=-1)
    weights = scores.softmax(-1)[..., : k.shape[2]]
    return (weights if seen is None else weights.masked_fill(~seen.any(-1, keepdim=True), 0)) @ v


def allowed(q: Tensor, k: Tensor, visible: Tensor | None, causal: bool) -> Tensor | None:
    """Which keys each query may see (broadcastable to B H T S), or None for all."""
    if not causal:
        return visible
    T, S = q.shape[-2], k.shape[-2]
    past = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return past if visible is None else past & visible
