"""Gated linear attention in chunks: matmuls within a chunk, one carried state between chunks.

Within a chunk of C steps, with b_t = ln a_1 + ... + ln a_t summed from its start and S the state before it,

    o_t = (e^{b_t} ⊙ q_t)ᵀ S + Σ_{s ≤ t} (Σ_i q_ti k_si e^{b_ti − b_si}) v_s,
    S ← diag(e^{b_C}) S + Σ_s (e^{b_C − b_s} ⊙ k_s) v_sᵀ

(Yang et al. 2024, arXiv:2312.06635, section 4; Dao & Gu 2024, arXiv:2405.21060, section 6). Every exponent is a sum of
log decays over a span of steps, hence ≤ 0, and each span is added up by itself, never as the difference b_t − b_s: that
would lose its digits when both are large, and be NaN once a decay is −inf.
"""

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms, precision
from zoo.ops.linear_attention import naive, official
from zoo.ops.step_by_step import finite, step_by_step


@forms.public
def linear_attention(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    log_decay: Float[Tensor, "#B H T"] | Float[Tensor, "#B H T K"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
    chunk: int = 64,
    bonus: Float[Tensor, "H K"] | None = None,
    scale: float = 1.0,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs, times `scale`, and final state of `naive.recurrent`, for any T. Each head of q and k serves H/G
    neighbouring ones of v.

    Decays and the carried state are float32 at least. The matmuls of a chunk run in bfloat16 where autocast says so or
    q, k and v have it; with a decay per channel only where they have it, and in torch never, as none of them is big
    enough to gain.

    Args:
        log_decay: ln a_t ≤ 0, one per head or one per key channel; −inf forgets all. None for no decay.
        state: what to continue from; None for zero.
        chunk: steps per chunk, at most; with a decay per channel a power of two.
        bonus: u of RWKV-5 and 6: outputs read the state before its update, and the present token by u.
        scale: what outputs are multiplied by.

    Raises:
        ValueError: H is no multiple of G, or `chunk` is no size.
    """
    naive.check_shared("linear_attention", v, k)
    if chunk < 1:
        raise ValueError(f"linear_attention: chunk is {chunk}, expected 1 at least")
    scaled = q if scale == 1 else precision.at_least_fp32(q) * scale
    if v.shape[2] == 1:
        return naive.recurrent(scaled, k, v, log_decay, state, bonus)
    if (served := official.linear_attention(scaled, k, v, log_decay, state, bonus)) is not None:
        return served
    by_channel = bonus is not None or (log_decay is not None and log_decay.ndim == 4)
    dtype = precision.common_dtype(q, k, v) if by_channel else precision.matmul_dtype(q, k, v)
    wide = precision.promote(q, k, v, log_decay, state, bonus)
    with precision.no_autocast(q.device):
        g = None if log_decay is None else log_decay.to(wide).expand(len(v), *log_decay.shape[1:])
        S = v.new_zeros(*v.shape[:2], q.shape[3], v.shape[3], dtype=wide) if state is None else state.to(wide)
        if by_channel:
            q, scaled, k = (naive.repeat(x, v.shape[1]) for x in (q, scaled, k))
            g = torch.zeros_like(k, dtype=wide) if g is None else g[..., None].expand_as(k) if g.ndim == 3 else g
            u = None if bonus is None else bonus.to(wide)
            if form := forms.choose("linear_attention", q, k, v, g, S, u, variant="per channel", matmul_dtype=dtype):
                o, S = form(q.to(dtype), k.to(dtype), v.to(dtype), g, S, u, scale)
            else:
                C = 1 << (min(chunk, v.shape[2]).bit_length() - 1)
                o, S = halved(scaled.to(wide), k.to(wide), v.to(wide), g, S, u, C)
        else:
            form = forms.choose("linear_attention", scaled, k, v, g, S, matmul_dtype=dtype)
            dtype = torch.float32 if dtype is torch.float16 else dtype  # whose largest number sums over keys soon pass
            form = form or partial(chunked, C=min(chunk, v.shape[2]))
            o, S = form(scaled.to(dtype), k.to(dtype), v.to(dtype), g, S)
        o = o.to(v.dtype)
    if finite(o, S):
        return o, S
    return step_by_step(partial(naive.recurrent, bonus=bonus), (scaled, k, v, log_decay), state)


def weighted_mean(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    eps: float,
    state: Float[Tensor, "B H K V"] | None = None,
    total: Float[Tensor, "B H K"] | None = None,
    *,
    log_decay: Float[Tensor, "B H T"] | None = None,
    floor: Float[Tensor, "B H T"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"], Float[Tensor, "B H K"]]:
    """S_tᵀ q_t / (max(|z_t · q_t|, floor_t) + ε) in v's dtype, and the final S and z, the sum that S is of ones.

    Args:
        state, total: S and z to continue from, both or neither.
        floor: 0 if not given. It has no gradient.
    """
    wide = precision.promote(q, k, v, log_decay, state, total)
    before = None if state is None or total is None else torch.cat([state.to(wide), total.to(wide)[..., None]], dim=-1)
    y, S = linear_attention(q, k, F.pad(v, (0, 1), value=1.0), log_decay, before)
    weight = y[..., -1:].to(wide).abs()
    weight = (weight if floor is None else torch.maximum(weight, floor[..., None])) + eps
    return y[..., :-1] * weight.reciprocal().to(y.dtype), S[..., :-1], S[..., -1]


def chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, S: Tensor, C: int
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """No decay, or one per head, in chunks of C steps; products in q's dtype.

    A decay per head comes out of products over channels: it scales pairs, and rows of v and o instead of rows of k and
    q, so that the R = H/G heads of v that share q and k share their pairs.
    """
    Q, K = (split(x, C)[:, :, None] for x in (q, k))  # (B, G, 1, N, C, K)
    V = written = split(v, C).unflatten(1, (q.shape[1], -1))  # (B, G, R, N, C, V)
    pairs = Q @ K.mT
    if g is None:
        pairs = pairs.tril()
    else:
        g = split(g[..., None], C).unflatten(1, (q.shape[1], -1))
        within, from_start = segments(g).squeeze(-1).exp(), g.cumsum(-2).exp()
        pairs, written = pairs * within.to(q.dtype), (within[..., -1, :, None] * V).to(q.dtype)
    S, before = S.unflatten(1, (q.shape[1], -1)), []
    for n, added in enumerate((K.mT @ written).unbind(3)):
        before.append(S.to(q.dtype))
        S = (S if g is None else from_start[:, :, :, n, -1:] * S) + added
    read = Q @ torch.stack(before, dim=3)
    o = pairs @ V + (read if g is None else (from_start * read).to(q.dtype))
    return o.flatten(3, 4)[..., : v.shape[2], :].flatten(1, 2), S.flatten(1, 2)


def halved(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, bonus: Tensor | None, C: int
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """A decay per channel, in chunks of C steps, a power of two.

    The decay between t and s does not come out of the sum over channels, as one of the two would have to carry e^{+b}.
    It does about a point m between them: e^{b_t − b_s} = e^{b_t − b_m} e^{b_m − b_s}. So a chunk is halved, the later
    half meets the earlier one in a matmul about the middle, and each half goes on in the same way: log₂ C matmuls, and
    only q_t · k_t is left. (The secondary chunks of arXiv:2312.06635, section 4.3, to the end.)
    """
    T, now = q.shape[2], k if bonus is None else bonus[:, None] * k
    q, k, now, v, total = (split(x, C) for x in (q, k, now, v, g))  # (B, H, N, C, ·)
    # Of each step in its block of `size` steps: the log decay from the block's start to what it reads, which with a
    # bonus is the state before its own decay; and from behind it to the block's end.
    from_start, to_end = total if bonus is None else torch.zeros_like(total), torch.zeros_like(total)
    o, size = (q * now).sum(-1, keepdim=True) * v, 1
    while size < C:
        later, earlier = halves(q, size)[1], halves(k, size)[0]
        pairs = (later * halves(from_start, size)[1].exp()) @ (earlier * halves(to_end, size)[0].exp()).mT
        read = pairs @ halves(v, size)[0]
        o = o + torch.stack([torch.zeros_like(read), read], dim=-3).flatten(-4, -2)
        from_start, to_end, total = doubled(from_start, to_end, total, size)
        size *= 2
    before = []
    for added, kept in zip(((to_end.exp() * k).mT @ v).unbind(2), total.exp().mT.unbind(2), strict=True):
        before.append(S)
        S = kept * S + added
    o = o + (from_start.exp() * q) @ torch.stack(before, dim=2)
    return o.flatten(2, 3)[:, :, :T], S


def split(x: Float[Tensor, "B H T F"], C: int) -> Float[Tensor, "B H N C F"]:
    """Cut time into N = ⌈T/C⌉ chunks. Padding is zero: nothing is added, and a log decay of 0 forgets nothing."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % C)).unflatten(2, (-1, C))


def halves(x: Float[Tensor, "*N C F"], size: int) -> tuple[Float[Tensor, "*N P s F"], Float[Tensor, "*N P s F"]]:
    """The earlier and the later halves of blocks of 2·size steps."""
    earlier, later = x.unflatten(-2, (-1, 2, size)).unbind(-3)
    return earlier, later


def doubled(
    from_start: Float[Tensor, "*N C F"], to_end: Float[Tensor, "*N C F"], total: Float[Tensor, "*N P F"], size: int
) -> tuple[Float[Tensor, "*N C F"], Float[Tensor, "*N C F"], Float[Tensor, "*N P/2 F"]]:
    """Log decays from the start of each step's block and to its end, and of whole blocks, for blocks of 2·size."""
    (start_1, start_2), (end_1, end_2) = halves(from_start, size), halves(to_end, size)
    total_1, total_2 = total[..., 0::2, None, :], total[..., 1::2, None, :]
    from_start = torch.stack([start_1, start_2 + total_1], dim=-3).flatten(-4, -2)
    to_end = torch.stack([end_1 + total_2, end_2], dim=-3).flatten(-4, -2)
    return from_start, to_end, (total_1 + total_2).squeeze(-2)


def segments(g: Float[Tensor, "*N C F"]) -> Float[Tensor, "*N C C F"]:
    """Σ_{s < r ≤ t} g_r at [t, s], and −inf where s > t."""
    pairs = torch.ones(g.shape[-2], g.shape[-2], dtype=torch.bool, device=g.device)
    upto, after = pairs.tril()[..., None], pairs.tril(-1)[..., None]  # s ≤ t, and s < r
    spans = g[..., :, None, :].expand(*g.shape[:-1], g.shape[-2], g.shape[-1]).masked_fill(~after, 0).cumsum(-3)
    return spans.masked_fill(~upto, float("-inf"))
