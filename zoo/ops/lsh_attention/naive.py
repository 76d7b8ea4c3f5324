"""LSH attention as it reads, one query at a time (Kitaev et al. 2020, arXiv:2001.04451, section 2, eqs. 3 to 5)."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SELF = -5e4
"""The score of a step for itself: it attends to itself only where it sees no other."""
HIDDEN = -1e9


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
    """Attention within chunks of steps sorted by bucket, combined over R rounds of hashing.

    In each round a row's n valid steps are sorted by (bucket, time) and cut into chunks; the last may be short. The
    chunks of all rounds form one ring, and a query sees its own chunk, `before` chunks back and `after` ahead on it,
    so that a round's first chunk looks back at the last chunk of the round before. A query scores
    `scale` · q·k/|k| (|k|² has 10⁻⁶ K added to it), and SELF for itself. Rounds are averaged with weights ∝ their
    softmax's denominators.

    Args:
        valid: true on the steps that count, which come first in each row; None for all. Other outputs are arbitrary.
        across_buckets: False hides keys of other buckets and rounds, except in rows of a single chunk.
        duplicates: False divides a pair's weight by the number of rounds in which it meets, as the official code
            counts them: its meetings across the borders between rounds do not count, and 10⁻⁹ is added.
    """
    B, H, T, K = qk.shape
    k = qk * (qk.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * K**-0.5
    y = torch.zeros_like(v)
    for b in range(B):
        n = T if valid is None else int(valid[b].sum())
        for h in range(H) if n else ():
            ring = Ring(buckets[b, h, :, :n].tolist(), chunk, across_buckets)
            for t in range(n):
                outputs, weights = [], []
                for r in range(buckets.shape[2]):
                    seen = ring.seen(r, t, before, after)
                    keys = torch.tensor([s for _, s in seen], device=qk.device)
                    hidden = torch.tensor([(causal and s > t) or not ring.visible(r, t, at, s) for at, s in seen])
                    hidden = hidden.to(qk.device)
                    scores = ((k[b, h, keys] @ qk[b, h, t]) * scale).masked_fill(hidden, HIDDEN)
                    scores = scores.masked_fill((keys == t) & ~hidden, SELF)
                    if not duplicates:
                        scores = scores - qk.new_tensor([math.log(ring.meetings(t, s) + 1e-9) for _, s in seen])
                    outputs.append(scores.softmax(0) @ v[b, h, keys])
                    weights.append(scores.logsumexp(0))
                y[b, h, t] = torch.stack(weights).softmax(0) @ torch.stack(outputs)
    return y


class Ring:
    """The chunks of all rounds of one head, given the bucket of each step in each round."""

    def __init__(self, buckets: list[list[int]], chunk: int, across_buckets: bool) -> None:
        self.buckets, steps = buckets, range(len(buckets[0]))
        self.across_buckets = across_buckets or len(steps) <= chunk
        in_order = [sorted(steps, key=of.__getitem__) for of in buckets]  # which leaves equal buckets in order of time
        self.chunks = [(r, row[i : i + chunk]) for r, row in enumerate(in_order) for i in range(0, len(row), chunk)]
        self.place = {(r, t): place for place, (r, steps) in enumerate(self.chunks) for t in steps}

    def seen(self, r: int, t: int, before: int, after: int) -> list[tuple[int, int]]:
        """Round and step of the keys in reach of step t in round r."""
        near = [self.chunks[(self.place[r, t] + i) % len(self.chunks)] for i in range(-before, after + 1)]
        return [(at, s) for at, steps in near for s in steps]

    def visible(self, r: int, t: int, at: int, s: int) -> bool:
        """Whether the buckets let step t of round r see step s of round `at`."""
        return self.across_buckets or (at == r and self.buckets[r][s] == self.buckets[r][t])

    def meetings(self, t: int, s: int) -> int:
        """In how many rounds t sees s, as the official code counts them."""
        rounds = [r for r in range(len(self.buckets)) if self.visible(r, t, r, s)]
        gaps = [(self.place[r, t] - self.place[r, s]) % len(self.chunks) for r in rounds]
        return sum((gap == 0) + (gap == 1 % len(self.chunks)) for gap in gaps)
