"""WKV as RWKV-4 computes it (Peng et al. 2023, arXiv:2305.13048, eq. 16 and appendix D; RWKV-v4/cuda/wkv_cuda.cu).

    wkv_t = (Σ_{s<t} e^{(t−1−s)w + k_s} v_s + e^{u+k_t} v_t) / (Σ_{s<t} e^{(t−1−s)w + k_s} + e^{u+k_t})

Numerator p and denominator q are kept divided by e^o, with o the largest exponent so far.
"""

from typing import TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LOWEST = -1e38
"""The exponent of an empty sum: below every key, and finite, so that differences are."""


class WKVState(TypedDict):
    """What a step continues from."""

    p: Float[Tensor, "B C"]
    q: Float[Tensor, "B C"]
    o: Float[Tensor, "B C"]


def init_state(batch: int, C: int, *, device: torch.device | str, dtype: torch.dtype = torch.float32) -> WKVState:
    """The state before the first step: p, q, o of shape (B, C)."""
    zero = torch.zeros(batch, C, device=device, dtype=dtype)
    return {"p": zero, "q": zero.clone(), "o": torch.full_like(zero, LOWEST)}


def wkv(
    w: Float[Tensor, " C"],
    u: Float[Tensor, " C"],
    k: Float[Tensor, "B T C"],
    v: Float[Tensor, "B T C"],
    state: WKVState | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T C"], WKVState]:
    """All wkv_t and the state {p, q, o} after them. w = −e^{time_decay} < 0; where `mask` is false the state stays."""
    B, T, C = k.shape
    if mask is not None:  # whatever stands there, NaN too, reaches no output and no gradient
        k, v = (x.masked_fill(~mask[..., None], 0) for x in (k, v))
    before = init_state(B, C, device=k.device, dtype=k.dtype) if state is None else state
    p, q, o, y = before["p"], before["q"], before["o"], []
    for t in range(T):
        k_t, v_t = k[:, t], v[:, t]
        n = torch.maximum(o, u + k_t)
        old, new = torch.exp(o - n), torch.exp(u + k_t - n)
        y.append((old * p + new * v_t) / (old * q + new))
        n = torch.maximum(w + o, k_t)
        old, new = torch.exp(w + o - n), torch.exp(k_t - n)
        after = old * p + new * v_t, old * q + new, n
        if mask is not None:
            valid = mask[:, t, None]
            after = (torch.where(valid, after[0], p), torch.where(valid, after[1], q), torch.where(valid, n, o))
        p, q, o = after
    return torch.stack(y, dim=1), {"p": p, "q": q, "o": o}
