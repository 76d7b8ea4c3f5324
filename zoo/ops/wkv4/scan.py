"""WKV through the diagonal scan: find every exponent o_t first, then p and q are linear recurrences.

    o_t = max(o_{t−1} + w, k_t),    a_t = e^{o_{t−1} + w − o_t},    [p, q]_t = a_t [p, q]_{t−1} + e^{k_t − o_t} [v_t, 1]

o is a max-plus scan, done by doubling in log2 T passes. It cancels out of wkv, so no gradient runs through it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops import diagonal_scan
from zoo.ops.wkv4.naive import LOWEST, init_state
from zoo.terms import State


def wkv(
    w: Float[Tensor, " C"],
    u: Float[Tensor, " C"],
    k: Float[Tensor, "B T C"],
    v: Float[Tensor, "B T C"],
    state: State | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T C"], State]:
    """See `naive.wkv`. Computes in float32 at least, autocast or not; y has v's dtype, the state stays wide."""
    dtype, wide = v.dtype, torch.promote_types(k.dtype, torch.float32)
    with torch.autocast(k.device.type, enabled=False):
        w, u, k, v = (x.to(wide) for x in (w, u, k, v))
        before = init_state(k.shape[0], k.shape[2], device=k.device, dtype=wide) if state is None else state
        p0, q0, o0 = (before[name].to(wide) for name in "pqo")  # type: ignore[union-attr]
        with torch.no_grad():
            o = exponents(w, k, o0, mask)
        past, o = o[:, :-1], o[:, 1:]
        decay = w if mask is None else w * mask[..., None]
        a = torch.exp(past - o + decay)
        b = torch.exp((k if mask is None else k.masked_fill(~mask[..., None], LOWEST)) - o)
        if mask is not None:
            b = b.masked_fill(~mask[..., None], 0)  # in an empty row o is LOWEST too
        h0 = torch.cat([p0, q0], dim=-1)
        h = diagonal_scan.scan(torch.cat([a, a], dim=-1), torch.cat([b * v, b], dim=-1), h0)
        p, q = torch.cat([h0[:, None], h[:, :-1]], dim=1).chunk(2, dim=-1)
        bonus = u + k
        n = torch.maximum(past, bonus.detach())
        old, new = torch.exp(past - n), torch.exp(bonus - n)
        y = (old * p + new * v) / (old * q + new)
        p, q = h[:, -1].chunk(2, dim=-1)
    return y.to(dtype), {"p": p, "q": q, "o": o[:, -1]}


def exponents(w: Tensor, k: Tensor, o0: Tensor, mask: Tensor | None) -> Float[Tensor, "B T+1 C"]:
    """o_0 and every o_t = max(o_{t−1} + w, k_t); where `mask` is false, o_t = o_{t−1}."""
    if mask is not None:
        k = k.masked_fill(~mask[..., None], LOWEST)
        steps = torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1).cumsum(1)[..., None].to(w.dtype)
    o = torch.cat([o0[:, None], k], dim=1)
    span = 1
    while span < o.shape[1]:
        decay = span * w if mask is None else (steps[:, span:] - steps[:, :-span]) * w
        later = o[:, span:]
        torch.maximum(later, o[:, :-span] + decay, out=later)
        span *= 2
    return o
