"""Banded attention as full attention under a mask, at a cost of T·S."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
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
    return attention.attend_naive(q, **dense(q, k, v, before, after, valid, bias, extra))


def dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    before: int,
    after: int,
    valid: Tensor | None,
    bias: Tensor | None,
    extra: Extra | None,
) -> dict[str, Any]:
    """The same as full attention: its k, v, visible and bias."""
    T, S = q.shape[2], k.shape[2]
    steps = torch.arange(S, device=q.device)
    ahead = steps - steps[S - T :, None]
    seen = band(ahead, before, after, valid if valid is None else valid[:, None, None, :])
    weight = None if bias is None else spread(bias, ahead, before)
    return join(extra, k, v, seen, weight)


def band(ahead: Tensor, before: int, after: int, valid: Tensor | None) -> Bool[Tensor, "#B 1 T S"]:
    """Who sees whom, where keys stand `ahead` (T, S) of the queries."""
    near = (ahead >= -before) & (ahead <= after)
    return near[None, None] if valid is None else near & valid | (ahead == 0)


def spread(bias: Float[Tensor, "#H W"], ahead: Tensor, before: int) -> Float[Tensor, "1 G T S"]:
    """The bias of each pair; outside the band, where it does not matter, that of the nearest edge."""
    return bias[:, (ahead + before).clamp(0, bias.shape[1] - 1)][None]


def join(extra: Extra | None, k: Tensor, v: Tensor, seen: Tensor, bias: Tensor | None) -> dict[str, Any]:
    """Full attention's arguments, with the extra keys before the others."""
    if extra is None:
        return {"k": k, "v": v, "visible": seen, "bias": bias}
    B, E = extra.k.shape[0], extra.k.shape[2]
    open_ = torch.ones(B, E, dtype=torch.bool, device=k.device) if extra.valid is None else extra.valid
    T = seen.shape[2]
    return {
        "k": torch.cat([extra.k.to(k.dtype), k], dim=2),
        "v": torch.cat([extra.v.to(v.dtype), v], dim=2),
        "visible": torch.cat([open_[:, None, None].expand(B, 1, T, E), seen.expand(B, -1, -1, -1)], dim=3),
        "bias": None if bias is None else F.pad(bias, (E, 0)),
    }
