"""LSH attention with every chunk of every round at once: sort, cut, attend, sort back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.ops import kernels
from zoo.ops.lsh_attention.naive import HIDDEN, SELF


def lsh_attention(
    qk: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    buckets: Int[Tensor, "B H R T"],
    *,
    chunk: int,
    before: int = 1,
    after: int = 0,
    causal: bool = False,
    valid: Bool[Tensor, "B T"] | None = None,
    across_buckets: bool = True,
    duplicates: bool = True,
    scale: float = 1.0,
) -> Float[Tensor, "B H T V"]:
    """See `naive.lsh_attention`. Any T: padding to whole chunks stands behind all buckets.

    Raises:
        ValueError: `duplicates=False` with other than one chunk back, which the official count takes for granted.
    """
    if not duplicates and (before, after) != (1, 0):
        raise ValueError("lsh_attention: duplicates are counted for one chunk back and none ahead only")
    kernels.ran("lsh_attention", "chunked")
    (B, H, T, K), R = qk.shape, buckets.shape[2]
    C = -(-T // chunk)
    length, N = C * chunk, R * C
    qk, v = (F.pad(x, (0, 0, 0, length - T)) for x in (qk, v))
    steps = torch.arange(length, device=qk.device)
    counts = steps < T if valid is None else F.pad(valid, (0, length - T))
    counts = counts.expand(B, length)[:, None, None]  # (B, 1, 1, length)

    bucket = F.pad(buckets, (0, length - T))
    order = torch.where(counts, bucket * length + steps, torch.iinfo(torch.long).max // 2 + steps).argsort(-1)
    place = order.argsort(-1)  # where each step went
    flat = order.flatten(2)  # (B, H, R · length)

    def cut(x: Tensor) -> Tensor:
        """Of each step, in sorted order and in chunks: (B, H, length, ·) to (B, H, N, chunk, ·)."""
        index = flat[..., None].expand(-1, -1, -1, x.shape[-1])
        return x.expand(B, H, length, x.shape[-1]).gather(2, index).unflatten(2, (N, chunk))

    # Of each row, the valid steps, and the ring that the chunks with such steps form through all rounds.
    n = counts.sum(-1)[..., None]  # (B, 1, 1, 1)
    ring = _Ring(R, C, C if valid is None else ((n + chunk - 1) // chunk).clamp(min=1), qk.device)

    def around(x: Tensor) -> Tensor:
        """What each chunk sees: (B, H, N, chunk, ·) to (B, H, N, W, ·)."""
        return torch.cat([ring.turn(x, i) for i in range(-before, after + 1)], dim=3)

    k = qk * ((qk.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * (K**-0.5 * scale))
    q_at = order.view(B, H, N, chunk, 1)
    k_at = around(q_at).mT
    scores = cut(qk) @ around(cut(k)).mT
    hidden = None if valid is None and length == T else ~around(cut(counts[:, 0].mT[:, None])).mT
    if causal:
        hidden = q_at < k_at if hidden is None else hidden | (q_at < k_at)
    if hidden is not None:
        scores = scores.masked_fill(hidden, HIDDEN)
    scores = scores.masked_fill(q_at == k_at, SELF)
    single = n[..., None] <= chunk
    if not across_buckets:
        named = bucket * R + torch.arange(R, device=qk.device)[:, None]  # of one bucket and one round
        q_in = named.gather(-1, order).view(B, H, N, chunk, 1)
        scores = scores.masked_fill((q_in != around(q_in).mT) & ~single, HIDDEN)
    if not duplicates:
        own = ring.position(place // chunk)  # (B, H, R, length)
        met = torch.zeros_like(scores)
        for r in range(R):
            q_on = cut(own[:, :, r, :, None])
            k_on = around(q_on).mT
            together = (q_on == k_on).to(met.dtype) + (q_on == ring.next(k_on)).to(met.dtype)
            if not across_buckets:
                same = cut(bucket[:, :, r, :, None])
                together = together * ((same == around(same).mT) | single)
            met = met + together
        scores = scores - (met + 1e-9).log()

    weight = scores.logsumexp(-1, keepdim=True)
    y = (scores - weight).exp() @ around(cut(v))
    y, weight = (
        x.view(B, H, R, length, -1).gather(3, place[..., None].expand(-1, -1, -1, -1, x.shape[-1])) for x in (y, weight)
    )
    return (y * weight.softmax(2)).sum(2)[:, :, :T]


class _Ring:
    """The chunks of R rounds in a ring, C to a round, of which a row uses the first `full`."""

    def __init__(self, R: int, C: int, full: int | Tensor, device: torch.device) -> None:
        self.R, self.C, self.full, self.device = R, C, full, device

    def position(self, chunk: Int[Tensor, "B H R #T"]) -> Int[Tensor, "B H R #T"]:
        """On the ring, of a round's chunks."""
        return chunk + torch.arange(self.R, device=self.device)[:, None] * self.full

    def next(self, position: Tensor) -> Tensor:
        size = self.R * self.full
        if isinstance(size, Tensor):
            size = size[..., None]
        return (position + 1) % size

    def turn(self, x: Tensor, i: int) -> Tensor:
        """For each chunk (axis 2), the one i further on."""
        if i == 0:
            return x
        if isinstance(self.full, int):
            return x.roll(-i, dims=2)
        chunk = torch.arange(self.C, device=self.device).expand(len(self.full), 1, self.R, self.C)
        there = (self.position(chunk.minimum(self.full - 1)) + i) % (self.R * self.full)
        source = there // self.full * self.C + there % self.full
        return x.gather(2, source.view(-1, 1, self.R * self.C, 1, 1).expand(x.shape))
