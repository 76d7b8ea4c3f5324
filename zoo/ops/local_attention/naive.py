"""Banded attention as full attention under a mask, at a cost of T·S."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.ops import attention


class Extra(NamedTuple):
    """Keys that every query sees wherever it stands, in one softmax with those of its band; `valid` None: all."""

    k: Float[Tensor, "B G E K"]
    v: Float[Tensor, "B G E V"]
    valid: Bool[Tensor, "B E"] | None = None


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S V"],
    *,
    before: int,
    after: int = 0,
    valid: Bool[Tensor, "B S"] | None = None,
    bias: Float[Tensor, "#H W"] | None = None,
    extra: Extra | None = None,
) -> Float[Tensor, "B H T V"]:
    """Attention of T queries over S keys, the last T of which stand where the queries do.

    Query t sees key s if −before ≤ s − (t + S − T) ≤ after and `valid` allows it; itself it sees whatever `valid` says,
    so that no softmax is empty. `bias` is added to the scores by distance, from `before` back (first) to `after` ahead
    (last). Heads of k and v may be fewer than those of q; each then serves as many neighbouring query heads.
    """
    return attention.attend_naive(q, **in_band(k, v, distances(q, k), before, after, valid, bias, extra))


def distances(q: Float[Tensor, "B H T K"], k: Float[Tensor, "B G S K"]) -> Int[Tensor, "T S"]:
    """How far each key stands ahead of each query."""
    steps = torch.arange(k.shape[2], device=q.device)
    return steps - steps[k.shape[2] - q.shape[2] :, None]


def in_band(
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S V"],
    distance: Int[Tensor, "T S"],
    before: int,
    after: int,
    valid: Bool[Tensor, "B S"] | None,
    bias: Float[Tensor, "#H W"] | None,
    extra: Extra | None,
) -> dict[str, Any]:
    """k, v, visible and bias of full attention to keys `distance` ahead of the queries, behind the extra ones."""
    seen = ((distance >= -before) & (distance <= after))[None, None]
    if valid is not None:
        seen = seen & valid[:, None, None] | (distance == 0)
    if bias is not None:  # outside the band, where it does not matter, that of the nearest edge
        bias = bias[:, (distance + before).clamp(0, bias.shape[1] - 1)][None]
    if extra is not None:
        (B, _, E, _), T = extra.k.shape, len(distance)
        there = torch.ones(B, E, dtype=torch.bool, device=k.device) if extra.valid is None else extra.valid
        k, v = torch.cat([extra.k.to(k.dtype), k], dim=2), torch.cat([extra.v.to(v.dtype), v], dim=2)
        seen = torch.cat([there[:, None, None].expand(B, 1, T, E), seen.expand(B, -1, -1, -1)], dim=3)
        bias = None if bias is None else F.pad(bias, (E, 0))
    return {"k": k, "v": v, "visible": seen, "bias": bias}
