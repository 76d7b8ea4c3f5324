"""WKV through the diagonal scan: find every exponent o_t first, then p and q are linear recurrences.

    o_t = max(o_{t−1} + w, k_t),    a_t = e^{o_{t−1} + w − o_t},    [p, q]_t = a_t [p, q]_{t−1} + e^{k_t − o_t} [v_t, 1]

o is a max-plus scan, done by doubling in log2 T passes. It cancels out of wkv, so no gradient runs through it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.diagonal_scan.chunked import scan
from zoo.ops.wkv4.naive import LOWEST


def wkv(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, p: Tensor, q: Tensor, o: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y and the next p, q and o of `naive.wkv`, all in one dtype."""
    skip = torch.zeros_like(k[..., :1], dtype=torch.bool) if mask is None else ~mask[..., None]
    with torch.no_grad():
        past, o = (every := exponents(w, k, o, skip))[:, :-1], every[:, 1:]
        n = torch.maximum(past, u + k)
    a = torch.exp(past - o + w.expand_as(k).masked_fill(skip, 0))
    # Filled twice: e^k must not overflow before it is thrown away, and in an empty row o is LOWEST as well.
    b = torch.exp(k.masked_fill(skip, LOWEST) - o).masked_fill(skip, 0)
    added, first = torch.stack([b * v, b], dim=2), torch.stack([p, q], dim=1)
    h = scan(a[:, :, None].expand_as(added), added, first)
    p, q = torch.cat([first[:, None], h[:, :-1]], dim=1).unbind(2)
    old, new = torch.exp(past - n), torch.exp(u + k - n)
    return (old * p + new * v) / (old * q + new), h[:, -1, 0], h[:, -1, 1], o[:, -1]


def exponents(
    w: Float[Tensor, " C"], k: Float[Tensor, "B T C"], o: Float[Tensor, "B C"], skip: Bool[Tensor, "B T 1"]
) -> Float[Tensor, "B T+1 C"]:
    """o_0 and every o_t = max(o_{t−1} + w, k_t); where a step is skipped, o_t = o_{t−1}."""
    steps = F.pad((~skip).cumsum(1), (0, 0, 1, 0)).to(w.dtype)
    every, span = torch.cat([o[:, None], k.masked_fill(skip, LOWEST)], dim=1), 1
    while span <= k.shape[1]:
        earlier = every[:, :-span] + (steps[:, span:] - steps[:, :-span]) * w
        every = torch.cat([every[:, :span], torch.maximum(every[:, span:], earlier)], dim=1)
        span *= 2
    return every
