"""LSH attention as it reads, one query at a time (Kitaev et al. 2020, arXiv:2001.04451, section 2, eqs. 3 to 5)."""

from __future__ import annotations

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
            ring = [
                (r, steps[i : i + chunk])
                for r, hashes in enumerate(buckets[b, h].tolist())
                for steps in [sorted(range(n), key=lambda t, hashes=hashes: (hashes[t], t))]  # type: ignore[misc]
                for i in range(0, n, chunk)
            ]
            N = len(ring)
            where = {(r, t): place for place, (r, steps) in enumerate(ring) for t in steps}
            single = n <= chunk
            rounds = buckets.shape[2]

            def bucket(r: int, t: int, b: int = b, h: int = h) -> int:
                return int(buckets[b, h, r, t])

            for t in range(n):
                outputs, weights = [], []
                for r in range(rounds):
                    seen = [
                        (at, s)
                        for i in range(-before, after + 1)
                        for at, steps in [ring[(where[r, t] + i) % N]]
                        for s in steps
                    ]
                    keys = torch.tensor([s for _, s in seen], device=qk.device)
                    scores = (k[b, h, keys] @ qk[b, h, t]) * scale
                    hidden = [causal and s > t for _, s in seen]
                    if not across_buckets and not single:
                        strange = [at != r or bucket(at, s) != bucket(r, t) for at, s in seen]
                        hidden = [x or y for x, y in zip(hidden, strange, strict=True)]
                    scores = scores.masked_fill(torch.tensor(hidden, device=qk.device), HIDDEN)
                    scores = scores.masked_fill((keys == t) & (scores != HIDDEN), SELF)
                    if not duplicates:
                        met = []
                        for _, s in seen:
                            same = [across_buckets or single or bucket(i, s) == bucket(i, t) for i in range(rounds)]
                            gaps = [(where[i, t] - where[i, s]) % N for i in range(rounds)]
                            met.append(sum((g == 0) + (g == 1 % N) for g, ok in zip(gaps, same, strict=True) if ok))
                        scores = scores - qk.new_tensor([math.log(m + 1e-9) for m in met])
                    outputs.append(scores.softmax(0) @ v[b, h, keys])
                    weights.append(scores.logsumexp(0))
                y[b, h, t] = torch.stack(weights).softmax(0) @ torch.stack(outputs)
    return y
