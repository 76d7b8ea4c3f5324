"""Banded softmax attention: each query sees the keys at most `before` behind it and at most `after` ahead of it.

`attend_naive` is full attention under a mask, at a cost of T·S; `attend` goes in blocks of queries, each over the keys
its band can reach, at a cost linear in T.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.ops import attention
from zoo.ops.forms import computes
from zoo.ops.kernel_log import log_kernel
from zoo.ops.step_by_step import finite

LEAST = 32
"""Queries in a block at least: small matrices cost more in calls than in work."""


class Extra(NamedTuple):
    """Keys that every query sees wherever it stands, in one softmax with those of its band; `valid` None: all."""

    k: Float[Tensor, "B G E K"]
    v: Float[Tensor, "B G E V"]
    valid: Bool[Tensor, "B E"] | None = None


def attend_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B J S V"],
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


@computes(attend_naive)
def attend(q, k, v, *, before, after=0, valid=None, bias=None, extra=None):  # type: ignore[no-untyped-def]
    """Full attention runs where it is no more work, and on a CPU where blocks are not finite."""
    T, S, size = q.shape[2], k.shape[2], min(q.shape[2], max(before + after, LEAST))
    if -(-T // size) * size * (size + before + after) < T * S:
        y = _by_blocks(size, q, k, v, before, after, valid, bias, extra)
        if y.device.type != "cpu" or finite(y):
            log_kernel("local_attention", "blocked")
            return y
    log_kernel("local_attention", "dense")
    return attention.attend(q, **in_band(k, v, distances(q, k), before, after, valid, bias, extra))


def distances(q: Float[Tensor, "B H T K"], k: Float[Tensor, "B G S K"]) -> Int[Tensor, "T S"]:
    """How far each key stands ahead of each query."""
    steps = torch.arange(k.shape[2], device=q.device)
    return steps - steps[k.shape[2] - q.shape[2] :, None]


def in_band(
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B J S V"],
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


def _by_blocks(
    size: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    before: int,
    after: int,
    valid: Tensor | None,
    bias: Tensor | None,
    extra: Extra | None,
) -> Tensor:
    """Attention in blocks of `size` queries."""
    (B, _, T, _), S, reach = q.shape, k.shape[2], before + after
    N = -(-T // size)
    first = S - T - before  # the first key of the first block; before the sequence if negative
    left, right = max(0, -first), N * size - T + after

    def windows(x: Tensor) -> Tensor:
        """(B, G, S, d) → (B·N, G, size + reach, d): the keys that each block can reach."""
        return Windows.apply(F.pad(x[:, :, max(0, first) :], (0, 0, left, right)), size + reach, size)

    there = torch.ones(1, S, dtype=torch.bool, device=q.device) if valid is None else valid
    there = windows(there[:, None, :, None])[:, 0, :, 0].unflatten(0, (-1, N)).expand(B, -1, -1).flatten(0, 1)
    distance = torch.arange(size + reach, device=q.device) - before - torch.arange(size, device=q.device)[:, None]
    if extra is not None:
        extra = Extra(*(x if x is None else x.repeat_interleave(N, dim=0) for x in extra))  # type: ignore[arg-type]
    blocks = F.pad(q, (0, 0, 0, N * size - T)).unflatten(2, (N, size)).transpose(1, 2).flatten(0, 1)
    keys = in_band(windows(k), windows(v), distance, before, after, there, bias, extra)
    return attention.attend(blocks, **keys).unflatten(0, (B, N)).transpose(1, 2).flatten(2, 3)[:, :, :T]


class Windows(torch.autograd.Function):
    """Of (B, G, T, d), windows of `width` steps at every `size`-th, the last of which ends at T: (B·N, G, width, d).

    The backward pass adds slabs of `size` steps, which overlap with none of their kind; torch's own adds step by step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int, size: int) -> Tensor:
        ctx.shape, ctx.size = x.shape, size
        return x.unfold(2, width, size).permute(0, 2, 1, 4, 3).contiguous().flatten(0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (B, G, T, d), size = ctx.shape, ctx.size
        dy = dy.unflatten(0, (B, -1)).transpose(2, 3)  # (B, N, width, G, d)
        N, slabs = dy.shape[1], dy.split(size, dim=2)
        dx = dy.new_zeros(B, N + len(slabs) - 1, size, G, d)
        for i, slab in enumerate(slabs):
            dx[:, i : i + N, : slab.shape[2]] += slab
        return dx.flatten(1, 2)[:, :T].transpose(1, 2), None, None
