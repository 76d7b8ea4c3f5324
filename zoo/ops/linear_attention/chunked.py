"""Gated linear attention in chunks: matmuls within a chunk, one carried state between chunks.

Within a chunk of C steps, with b_t = ln a_1 + ... + ln a_t summed from its start and S the state before it,

    o_t = (e^{b_t} ⊙ q_t)ᵀ S + Σ_{s ≤ t} (Σ_i q_ti k_si e^{b_ti − b_si}) v_s,
    S ← diag(e^{b_C}) S + Σ_s (e^{b_C − b_s} ⊙ k_s) v_sᵀ

(Yang et al. 2024, arXiv:2312.06635, section 4; Dao & Gu 2024, arXiv:2405.21060, section 6). Every exponent is a sum of
log decays over a span of steps, hence ≤ 0, and each span is added up by itself, never as the difference b_t − b_s: that
would lose its digits when both are large, and be NaN once a decay is −inf.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import kernels, precision
from zoo.ops.linear_attention import naive

# Where pairs of steps are weighed channel by channel (`zoo.ops.delta_rule`) they cost C·K numbers a step, against K·V/C
# for the states: chunks of 8 are the best of 4, 8 and 16. Here pairs have a matmul form, see `_per_channel`.
CHANNEL_CHUNK = 8


def linear_attention(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    log_decay: Float[Tensor, "#B H T"] | Float[Tensor, "#B H T K"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
    chunk: int = 64,
    bonus: Float[Tensor, "H K"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs and final state of `naive.recurrent`, for any T.

    Decay and state are float32 at least. Without decay the matmuls run in the dtype of q, k and v (bfloat16 stays so).

    Args:
        log_decay: ln a_t ≤ 0, one per head or one per key channel; −inf forgets all. None for no decay.
        state: what to continue from; None for zero.
        chunk: steps per chunk, at most; with a decay per channel a power of two.
        bonus: u of RWKV-5 and 6: outputs read the state before its update, and the present token by u.
    """
    B, H, T, K = q.shape
    if T == 1:
        now = None if log_decay is None else log_decay[:, :, 0]
        o, S = naive.step(q[:, :, 0], k[:, :, 0], v[:, :, 0], now, state, bonus)
        return o[:, :, None], S
    kernels.ran("linear_attention", "chunked")
    with precision.full(q.device):
        dtype = precision.widest(q, k, v, log_decay, state, bonus)
        S = q.new_zeros(B, H, K, v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
        if bonus is None:
            o, S = _chunked(q, k, v, log_decay, S, min(chunk, T))
        else:
            # What step t reads of the past is what step t − 1 would read with its query after the update.
            first = q[:, :, :1].to(dtype) @ S
            o, S = _chunked(F.pad(q[:, :, 1:], (0, 0, 0, 1)), k, v, log_decay, S, min(chunk, T))
            now = (q.to(dtype) * bonus.to(dtype)[:, None] * k.to(dtype)).sum(-1, keepdim=True)
            o = torch.cat([first, o[:, :, :-1].to(dtype)], dim=2) + now * v.to(dtype)
        return o.to(v.dtype), S


def _chunked(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, S: Tensor, C: int) -> tuple[Tensor, Tensor]:
    """Outputs and final state, by the kind of decay."""
    if log_decay is None:
        return _plain(q, k, v, S, C)
    if log_decay.ndim == 3:
        return _per_head(q, k, v, log_decay[..., None].to(S.dtype), S, C)
    return _per_channel(q, k, v, log_decay.to(S.dtype), S, 1 << (C.bit_length() - 1))


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


def _per_head(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, S: Tensor, C: int) -> tuple[Tensor, Tensor]:
    """A decay per head, (B, H, T, 1): the pairs of a chunk are one matmul, and one factor each."""
    T = q.shape[2]
    q, k, v, g = (split(x.to(S.dtype), C) for x in (q, k, v, log_decay))  # (B, H, N, C, ·)
    spans = segments(g)  # (B, H, N, C, C, 1)
    o = ((q @ k.transpose(-1, -2)) * spans.squeeze(-1).exp()) @ v
    o, S = _between(o, q, k, v, g.cumsum(-2), spans[..., -1, :, :], S)
    return o.flatten(2, 3)[:, :, :T], S


def _per_channel(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, S: Tensor, C: int) -> tuple[Tensor, Tensor]:
    """A decay per channel, (B, H, T, K), C a power of two.

    The decay between t and s does not come out of the sum over channels, as one of the two would have to carry e^{+b}.
    It does about a point m between them: e^{b_t − b_s} = e^{b_t − b_m} e^{b_m − b_s}. So a chunk is halved, the later
    half meets the earlier one in a matmul about the middle, and each half goes on in the same way: log₂ C matmuls, and
    only q_t · k_t is left. (The secondary chunks of arXiv:2312.06635, section 4.3, to the end.)
    """
    T = q.shape[2]
    q, k, v, total = (split(x.to(S.dtype), C) for x in (q, k, v, log_decay))  # (B, H, N, C, ·)
    # Of each step in its block of `size` steps: the log decay from the block's start, and from behind it to the end.
    from_start, to_end = total, torch.zeros_like(total)
    o = (q * k).sum(-1, keepdim=True) * v
    size = 1
    while size < C:
        (_, later), (earlier, _) = _halves(q, size), _halves(k, size)
        (start_1, start_2), (end_1, end_2) = _halves(from_start, size), _halves(to_end, size)
        pairs = (later * start_2.exp()) @ (earlier * end_1.exp()).transpose(-1, -2)
        met = pairs @ _halves(v, size)[0]
        o = o + torch.stack([torch.zeros_like(met), met], dim=-3).flatten(-4, -2)
        total_1, total_2 = total[..., 0::2, None, :], total[..., 1::2, None, :]
        from_start = torch.stack([start_1, start_2 + total_1], dim=-3).flatten(-4, -2)
        to_end = torch.stack([end_1 + total_2, end_2], dim=-3).flatten(-4, -2)
        total, size = (total_1 + total_2).squeeze(-2), 2 * size
    o, S = _between(o, q, k, v, from_start, to_end, S)
    return o.flatten(2, 3)[:, :, :T], S


def _between(
    o: Tensor, q: Tensor, k: Tensor, v: Tensor, from_start: Tensor, to_end: Tensor, S: Tensor
) -> tuple[Tensor, Tensor]:
    """What the chunks read of the states before them, on top of o; and the final state."""
    added = (to_end.exp() * k).transpose(-1, -2) @ v
    from_start = from_start.exp()
    before = []
    for new, kept in zip(added.unbind(2), from_start[..., -1, :].unbind(2), strict=True):
        before.append(S)
        S = kept[..., None] * S + new
    return o + (from_start * q) @ torch.stack(before, dim=2), S


def split(x: Float[Tensor, "B H T F"], C: int) -> Float[Tensor, "B H N C F"]:
    """Cut time into N = ⌈T/C⌉ chunks. Padding is zero: nothing is added, and a log decay of 0 forgets nothing."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % C)).unflatten(2, (-1, C))


def _halves(x: Float[Tensor, "*N C F"], size: int) -> tuple[Float[Tensor, "*N P s F"], Float[Tensor, "*N P s F"]]:
    """The earlier and the later halves of blocks of 2·size steps."""
    earlier, later = x.unflatten(-2, (-1, 2, size)).unbind(-3)
    return earlier, later


def segments(g: Float[Tensor, "*N C F"]) -> Float[Tensor, "*N C C F"]:
    """Σ_{s < r ≤ t} g_r at [t, s], and −inf where s > t."""
    pairs = torch.ones(g.shape[-2], g.shape[-2], dtype=torch.bool, device=g.device)
    upto, after = pairs.tril()[..., None], pairs.tril(-1)[..., None]  # s ≤ t, and s < r
    spans = g[..., :, None, :].expand(*g.shape[:-1], g.shape[-2], g.shape[-1]).masked_fill(~after, 0).cumsum(-3)
    return spans.masked_fill(~upto, float("-inf"))
