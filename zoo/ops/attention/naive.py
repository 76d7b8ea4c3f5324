"""Softmax attention as the equation reads: softmax(q kᵀ / √d) v (Vaswani et al. 2017, eq. 1)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S V"],
    *,
    visible: Bool[Tensor, "#B #H #T S"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "B H T V"]:
    """Attention of T queries over S keys. With `causal`, query t sees keys up to t + S − T; `visible` narrows it."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    seen = allowed(q, k, visible, causal)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ v


def allowed(q: Tensor, k: Tensor, visible: Tensor | None, causal: bool) -> Tensor | None:
    """Which keys each query may see (broadcastable to B H T S), or None for all."""
    if not causal:
        return visible
    T, S = q.shape[-2], k.shape[-2]
    past = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return past if visible is None else past & visible
