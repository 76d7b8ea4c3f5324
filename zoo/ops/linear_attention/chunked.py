"""Gated linear attention in chunks: matmuls within a chunk, one carried state between chunks.

Within a chunk of C steps, with b_t = ln a_1 + ... + ln a_t summed from its start and S the state before it,

    o_t = (e^{b_t} ⊙ q_t)ᵀ S + Σ_{s ≤ t} (Σ_i q_ti k_si e^{b_ti − b_si}) v_s,
    S ← diag(e^{b_C}) S + Σ_s (e^{b_C − b_s} ⊙ k_s) v_sᵀ

(Yang et al. 2024, arXiv:2312.06635, section 4; Dao & Gu 2024, arXiv:2405.21060, section 6). Every exponent is a sum of
log decays over a span of steps, hence ≤ 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import kernels, precision
from zoo.ops.linear_attention import naive

# With one decay per channel the pairs (t, s) inside a chunk have no matmul form without e^{+b}, which overflows, so
# they are formed one by one: C·K numbers a step, against K·V/C for the states. On one core 8 beats 4 and 16 (66 ms
# forward and backward for 4096 steps at K = V = 64, against 81 and 166).
CHANNEL_CHUNK = 8


def linear_attention(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    log_decay: Float[Tensor, "B H T"] | Float[Tensor, "B H T K"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs and final state of `naive.recurrent`, for any T.

    Decay and state are float32 at least. Without decay the matmuls run in the dtype of q, k and v (bfloat16 stays so).

    Args:
        log_decay: ln a_t ≤ 0, one per head or one per key channel; −inf forgets all. None for no decay.
        state: what to continue from; None for zero.
        chunk: steps per chunk, at most `CHANNEL_CHUNK` of them with a decay per channel.
    """
    B, H, T, K = q.shape
    if T == 1:
        now = None if log_decay is None else log_decay[:, :, 0]
        o, S = naive.step(q[:, :, 0], k[:, :, 0], v[:, :, 0], now, state)
        return o[:, :, None], S
    kernels.ran("linear_attention", "chunked")
    with precision.full(q.device):
        dtype = naive.state_dtype(q, k, v, log_decay, state)
        S = q.new_zeros(B, H, K, v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
        if log_decay is None:
            o, S = _plain(q, k, v, S, min(chunk, T))
        elif log_decay.ndim == 3:
            o, S = _decayed(q, k, v, log_decay[..., None].to(dtype), S, min(chunk, T))
        else:
            o, S = _decayed(q, k, v, log_decay.to(dtype), S, min(chunk, T, CHANNEL_CHUNK))
        return o.to(v.dtype), S


def _plain(q: Tensor, k: Tensor, v: Tensor, S: Tensor, C: int) -> tuple[Tensor, Tensor]:
    """No decay: every matmul in the inputs' common dtype, the state carried in its own."""
    T, dtype = q.shape[2], torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    q, k, v = (split(x.to(dtype), C) for x in (q, k, v))
    o = (q @ k.transpose(-1, -2)).tril() @ v
    before = []
    for added in (k.transpose(-1, -2) @ v).to(S.dtype).unbind(2):
        before.append(S)
        S = S + added
    o = o + q @ torch.stack(before, dim=2).to(dtype)
    return o.flatten(2, 3)[:, :, :T], S


def _decayed(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, S: Tensor, C: int) -> tuple[Tensor, Tensor]:
    """A decay per head, (B, H, T, 1), or per channel, (B, H, T, K)."""
    T = q.shape[2]
    q, k, v, g = (split(x.to(S.dtype), C) for x in (q, k, v, log_decay))  # (B, H, N, C, ·)
    spans = segments(g)  # (B, H, N, C, C, 1 or K)
    from_start, to_end = g.cumsum(-2).exp(), spans[..., -1, :, :].exp()
    if g.shape[-1] == 1:
        pairs = (q @ k.transpose(-1, -2)) * spans.squeeze(-1).exp()
    else:
        pairs = (spans.exp() * q[..., :, None, :] * k[..., None, :, :]).sum(-1)
    o = pairs @ v
    before = []
    for added, kept in zip(
        ((to_end * k).transpose(-1, -2) @ v).unbind(2), from_start[..., -1, :].unbind(2), strict=True
    ):
        before.append(S)
        S = kept[..., None] * S + added
    o = o + (from_start * q) @ torch.stack(before, dim=2)
    return o.flatten(2, 3)[:, :, :T], S


def split(x: Float[Tensor, "B H T F"], C: int) -> Float[Tensor, "B H N C F"]:
    """Cut time into N = ⌈T/C⌉ chunks. Padding is zero: nothing is added, and a log decay of 0 forgets nothing."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % C)).unflatten(2, (-1, C))


def segments(g: Float[Tensor, "*N C F"]) -> Float[Tensor, "*N C C F"]:
    """Σ_{s < r ≤ t} g_r at [t, s], and −inf where s > t.

    Each span is summed by itself: the difference of two cumulative sums loses its digits when both are large, and is
    NaN once a decay is −inf.
    """
    pairs = torch.ones(g.shape[-2], g.shape[-2], dtype=torch.bool, device=g.device)
    upto, after = pairs.tril()[..., None], pairs.tril(-1)[..., None]  # s ≤ t, and s < r
    spans = g[..., :, None, :].expand(*g.shape[:-1], g.shape[-2], g.shape[-1]).masked_fill(~after, 0).cumsum(-3)
    return spans.masked_fill(~upto, float("-inf"))
