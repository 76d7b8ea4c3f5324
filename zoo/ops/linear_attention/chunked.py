"""Gated linear attention in chunks: matmuls within a chunk, one carried state between chunks.

Within a chunk of C steps, with b_t = ln a_1 + ... + ln a_t summed from its start and S the state before it,

    o_t = (e^{b_t} ⊙ q_t)ᵀ S + Σ_{s ≤ t} (Σ_i q_ti k_si e^{b_ti − b_si}) v_s,
    S ← diag(e^{b_C}) S + Σ_s (e^{b_C − b_s} ⊙ k_s) v_sᵀ

(Yang et al. 2024, arXiv:2312.06635, section 4; Dao & Gu 2024, arXiv:2405.21060, section 6). Every exponent is a sum of
log decays over a span of steps, hence ≤ 0, and each span is added up by itself, never as the difference b_t − b_s: that
would lose its digits when both are large, and be NaN once a decay is −inf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms, precision
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention import naive, official

# Where pairs of steps are weighed channel by channel (`zoo.ops.delta_rule`) they cost C·K numbers a step, against K·V/C
# for the states: chunks of 8 are the best of 4, 8 and 16. Here pairs have a matmul form, see `_per_channel`.
CHANNEL_CHUNK = 8

LOWEST = -1000.0
"""e^−1000 is 0 in float64 too, and 0 · −1000 is 0: a finite −inf, which matmuls can add up."""


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
    q, k and v have it; with a decay per channel only in compiled loops, as else none of them is big enough to gain.

    Args:
        log_decay: ln a_t ≤ 0, one per head or one per key channel; −inf forgets all. None for no decay.
        state: what to continue from; None for zero.
        chunk: steps per chunk, at most; with a decay per channel a power of two.
        bonus: u of RWKV-5 and 6: outputs read the state before its update, and the present token by u.
        scale: what outputs are multiplied by.
    """
    B, H, T, V = v.shape
    K, products = q.shape[-1], _products(q, k, v)
    by_channel = log_decay is not None and log_decay.ndim == 4
    half = precision.common_dtype(q, k, v) if by_channel else products
    if T > 1 and bonus is None and _in_loops(half, q, k, v, log_decay, state):
        with precision.no_autocast(q.device):
            return _tiled(q, k, v, log_decay, state, scale)
    q = q if scale == 1 else precision.at_least_fp32(q) * scale
    if T == 1:
        now = None if log_decay is None else log_decay[:, :, 0]
        o, S = naive.step(q[:, :, 0], k[:, :, 0], v[:, :, 0], now, state, bonus)
        return o[:, :, None], S
    if (served := official.linear_attention(q, k, v, log_decay, state, bonus)) is not None:
        return served
    with precision.no_autocast(q.device):
        dtype = precision.promote(q, k, v, log_decay, state, bonus)
        S = q.new_zeros(B, H, K, V, dtype=dtype) if state is None else state.to(dtype)
        g = None if log_decay is None else log_decay.to(dtype)
        if g is not None and g.ndim == 4:
            q, k = (naive.repeat(x, H).to(dtype) for x in (q, k))
            if forms.supports(q, v.to(dtype)):
                from zoo.ops.cpu.linear_attention_scan import CompiledLinearAttention  # loads numba

                log_kernel("linear_attention", "compiled loop")
                u = None if bonus is None else bonus.to(dtype)
                o, S = CompiledLinearAttention.apply(q, k, v.to(dtype), g.expand(B, -1, -1, -1), S, u)
                return o.to(v.dtype), S
        if g is not None and g.ndim == 3 and bonus is None and _loops_serve(q, k, v, g):
            from zoo.ops.cpu.head_decay import CompiledHeadDecay  # loads numba

            log_kernel("linear_attention", "chunked, compiled loops")
            o, S = CompiledHeadDecay.apply(q, k, v, g.expand(B, -1, -1), S, min(chunk, T), products)
            return o, S
        log_kernel("linear_attention", "chunked")
        if bonus is None:
            o, S = _form(q, k, v, g, S, min(chunk, T), products)
        else:
            q, k = (naive.repeat(x, H) for x in (q, k))
            # What step t reads of the past is what step t − 1 would read with its query after the update.
            first = q[:, :, :1].to(dtype) @ S
            o, S = _form(F.pad(q[:, :, 1:], (0, 0, 0, 1)), k, v, g, S, min(chunk, T), products)
            now = (q.to(dtype) * bonus.to(dtype)[:, None] * k.to(dtype)).sum(-1, keepdim=True)
            o = torch.cat([first, o[:, :, :-1].to(dtype)], dim=2) + now * v.to(dtype)
        return o.to(v.dtype), S


def weighted_mean(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    eps: float,
    state: Float[Tensor, "B H K V"] | None = None,
    total: Float[Tensor, "B H K"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"], Float[Tensor, "B H K"]]:
    """S_tᵀ q_t / (z_t · q_t + ε) in v's dtype, and the final S and z = Σ k_s; without a decay, of q and k ≥ 0.

    Args:
        state, total: S and z to continue from, both or neither.
    """
    B, H, T, V = v.shape
    if T > 1 and _in_loops(_products(q, k, v), q, k, v, state, total):
        from zoo.ops.cpu.linear_attention import TiledLinearAttention  # loads numba

        log_kernel("linear_attention", f"chunked, on {forms.matmul_backend(torch.bfloat16)}")
        S = torch.zeros(B, H, q.shape[3], V) if state is None else state.float()
        z = torch.zeros(B, H, q.shape[3]) if total is None else total.float()
        o, S, z = TiledLinearAttention.apply(*(x.bfloat16() for x in (q, k, v)), None, S, z, 1.0, eps)
        return o.to(v.dtype), S, z
    before = None if state is None or total is None else torch.cat([state, total[..., None]], dim=-1)
    y, S = linear_attention(q, k, F.pad(v, (0, 1), value=1.0), state=before)
    y = y[..., :-1] * (precision.at_least_fp32(y[..., -1:]) + eps).reciprocal().to(y.dtype)
    return y, S[..., :-1], S[..., -1]


def _in_loops(products: torch.dtype, q: Tensor, k: Tensor, v: Tensor, *wide: Tensor | None) -> bool:
    """Whether compiled loops run `products` in bfloat16 fast, beside decays and states in float32."""
    return (
        products is torch.bfloat16
        and precision.promote(*wide) is torch.float32
        and q.shape[1] == v.shape[1]
        and forms.has_matmul_kernel(products, q, k, v)
    )


def _tiled(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, S: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Outputs and final state, by loops that multiply."""
    from zoo.ops.cpu.channel_decay import TiledChannelDecay  # loads numba
    from zoo.ops.cpu.linear_attention import TiledLinearAttention

    log_kernel("linear_attention", f"chunked, on {forms.matmul_backend(torch.bfloat16)}")
    B, H, K, V = *q.shape[:2], q.shape[3], v.shape[3]
    dtype, (q, k, v) = v.dtype, (x.bfloat16() for x in (q, k, v))
    S = torch.zeros(B, H, K, V) if S is None else S.float()
    g = None if g is None else g.float().expand(B, *g.shape[1:])
    if g is not None and g.ndim == 4:
        o, S = TiledChannelDecay.apply(q, k, v, g, S, scale)
    else:
        o, S, _ = TiledLinearAttention.apply(q, k, v, g, S, S.new_zeros(B, H, K), scale, None)
    return o.to(dtype), S


def _loops_serve(*tensors: Tensor) -> bool:
    """As `compiled.serves`, and bfloat16."""
    return forms.supports(*(x[..., :0].float() if x.dtype is torch.bfloat16 else x for x in tensors))


def _products(q: Tensor, k: Tensor, v: Tensor) -> torch.dtype:
    """What the matmuls of a chunk run in. Not in float16, whose largest number sums over keys soon pass."""
    dtype = precision.matmul_dtype(q, k, v)
    return torch.float32 if dtype is torch.float16 else dtype


def _form(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, S: Tensor, C: int, products: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Outputs and final state, by the kind of decay."""
    if g is not None and g.ndim == 4:
        return _per_channel(q, k, v, g, S, 1 << (C.bit_length() - 1))
    o, S = Chunked.apply(q, k, v, g, S, C, products)
    return o, S


class Chunked(torch.autograd.Function):
    """No decay, or one per head (#B, H, T): o in the dtype `products`, and the final state.

    A decay per head comes out of products over channels: it scales pairs, and rows of v and o instead of rows of k and
    q, so that the R = H/G heads of v that share q and k share its products too, R·V columns at a time. Saved are the
    inputs cut into chunks, decays, and copies of the states between chunks, whose error (in bfloat16) does not add up,
    as the states are carried in full; what is inside chunks is computed again. Pairs are at [s, t], key by query.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        S: Tensor,
        C: int,
        products: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        (G, T), ctx.C, ctx.dtypes = q.shape[1:3], C, [x.dtype for x in (q, k, v)]
        Q, K_ = (cut(x, C, products) for x in (q, k))  # (B, G, N, C, K)
        rows = cut(_grouped(v, G), C, products)  # (B, G, N, C, R, V)
        pairs = K_ @ Q.mT
        if g is None:
            decays: tuple[Tensor, ...] = ()
            added = K_.mT @ rows.flatten(-2)
        else:
            within, from_start, to_end, _ = decays = _decays(cut(_grouped(g[..., None], G), C, g.dtype), products)
            added = K_.mT @ (rows * to_end).flatten(-2)
        R, V = rows.shape[-2:]
        states = S.new_empty(*Q.shape[:2], Q.shape[2] + 1, Q.shape[-1], R, V)
        states[:, :, 0] = S.unflatten(1, (G, R)).transpose(2, 3)
        states[:, :, 1:] = added.unflatten(-1, (R, V))
        _carry(states, decays)
        before = states[:, :, :-1].to(products).flatten(-2)  # (B, G, N, K, R·V)
        if g is None:
            o = fused(pairs.triu_().mT @ rows.flatten(-2), Q, before).unflatten(-1, (R, V))
        else:
            inside = (pairs[..., None, :, :] * within).mT @ _by_head(rows)
            o = torch.addcmul(inside.transpose(-3, -2), (Q @ before).unflatten(-1, (R, V)), from_start)
        ctx.save_for_backward(Q, K_, rows, before, *decays)
        ctx.shared = g is not None and g.shape[0] < q.shape[0]
        return _ungrouped(o, T), states[:, :, -1].transpose(2, 3).flatten(1, 2).clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor, dS: Tensor) -> tuple[Tensor | None, ...]:
        Q, K_, rows, before, *decays = ctx.saved_tensors
        (R, V), G, T = rows.shape[-2:], Q.shape[1], do.shape[2]
        do = cut(_grouped(do, G), ctx.C, rows.dtype)
        read, written = (do * decays[1], rows * decays[2]) if decays else (do, rows)  # by, and into, states
        read, written = read.flatten(-2), written.flatten(-2)
        states = dS.new_empty(*Q.shape[:2], Q.shape[2] + 1, Q.shape[-1], R, V)  # the gradients of states
        states[:, :, -1] = dS.unflatten(1, (G, R)).transpose(2, 3)
        states[:, :, :-1] = (Q.mT @ read).unflatten(-1, (R, V))
        _carry(states, decays, back=True)
        after = states[:, :, 1:].to(rows.dtype).flatten(-2)
        pairs = K_ @ Q.mT
        dg = None
        if not decays:
            dpairs = (rows.flatten(-2) @ do.flatten(-2).mT).triu_()
            dv = fused(pairs.triu_() @ do.flatten(-2), K_, after).unflatten(-1, (R, V))
        else:
            within, _, to_end, _ = decays
            do_by_head = _by_head(do)
            dwithin = (_by_head(rows) @ do_by_head.mT).mul_(within)
            dpairs = dwithin.sum(-3) if R > 1 else dwithin.squeeze(-3)
            told = (K_ @ after).unflatten(-1, (R, V))
            inside = (pairs[..., None, :, :] * within) @ do_by_head
            dv = torch.addcmul(inside.transpose(-3, -2), told, to_end)
            if ctx.needs_input_grad[3]:
                spans = pairs[..., None, :, :].to(dS.dtype) * dwithin
                met = read * (Q @ before), written * told.flatten(-2), before * after
                dstart, dend, dkept = (x.unflatten(-1, (R, V)) for x in met)
                dg = _ungrouped(_decay_gradient(spans, dstart, dend, dkept * decays[3]), T).squeeze(-1)
                dg = dg.sum(0, keepdim=True) if ctx.shared else dg
        dq = _ungrouped(fused(dpairs.mT @ K_, read, before.mT)[..., None, :], T)
        dk = _ungrouped(fused(dpairs @ Q, written, after.mT)[..., None, :], T)
        dq, dk, dv = (x.to(dtype) for x, dtype in zip((dq, dk, _ungrouped(dv, T)), ctx.dtypes, strict=True))
        return dq, dk, dv, dg, states[:, :, 0].transpose(2, 3).flatten(1, 2), None, None


def _grouped(x: Float[Tensor, "B H T F"], G: int) -> Float[Tensor, "B G T R F"]:
    return x.unflatten(1, (G, -1)).transpose(2, 3)


def _ungrouped(x: Float[Tensor, "B G N C R F"], T: int) -> Float[Tensor, "B H T F"]:
    return x.flatten(2, 3)[:, :, :T].transpose(2, 3).flatten(1, 2)


def _by_head(x: Float[Tensor, "B G N C R F"]) -> Float[Tensor, "B G N R C F"]:
    return x.transpose(-3, -2).contiguous()


def cut(x: Float[Tensor, "B G T *F"], C: int, dtype: torch.dtype) -> Float[Tensor, "B G N C *F"]:
    """Time in ⌈T/C⌉ chunks, contiguous and in `dtype`, in one copy at most. Padding as in `split`."""
    T, over = x.shape[2], -x.shape[2] % C
    if not over:
        return x.to(dtype, memory_format=torch.contiguous_format).contiguous().unflatten(2, (-1, C))
    y = x.new_empty(*x.shape[:2], T + over, *x.shape[3:], dtype=dtype)
    y[:, :, :T] = x
    y[:, :, T:] = 0
    return y.unflatten(2, (-1, C))


def fused(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """y + a @ b, in place of y where it can be."""
    return torch.baddbmm(y.flatten(0, -3), a.flatten(0, -3), b.flatten(0, -3)).view_as(y)


def _decays(g: Float[Tensor, "b G N C R 1"], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Between pairs [s, t] (b, G, N, R, C, C), 0 where s > t; from the chunk's start; from behind each step to its end;
    and of the whole chunk (b, G, N, 1, R, 1), which stays in g's dtype, as its error would add up from chunk to chunk.

    Spans are summed by a matmul with ones, in full precision: g_r counts for s < r ≤ t.
    """
    g = g.clamp(min=LOWEST)
    ones = torch.ones(g.shape[3], g.shape[3], dtype=g.dtype, device=g.device)
    by_head = g.squeeze(-1).transpose(-1, -2)[..., None, :]  # (b, G, N, R, 1, C)
    within = ((by_head * ones.triu(1)) @ ones.triu()).exp_()
    to_end = within[..., -1].transpose(-1, -2)[..., None]
    from_start = g.cumsum(-3).exp_()
    return within.triu_().to(dtype), from_start.to(dtype), to_end.to(dtype), from_start[:, :, :, -1:].clone()


def _decay_gradient(
    dspans: Float[Tensor, "B G N R C C"],
    dstart: Float[Tensor, "B G N C R V"],
    dend: Float[Tensor, "B G N C R V"],
    dkept: Float[Tensor, "B G N K R V"],
) -> Float[Tensor, "B G N C R 1"]:
    """From the gradients of log decays over spans: g_r has a part in spans of pairs s < r ≤ t, in those from the start
    to t ≥ r, in those from s < r to the end, and in the whole."""
    ones = torch.ones(dspans.shape[-2:], dtype=dspans.dtype, device=dspans.device)
    dg = ((dspans @ ones.tril()).mul_(ones.triu(1))).sum(-2).transpose(-1, -2)
    dstart, dend = (x.sum(-1, dtype=dg.dtype) for x in (dstart, dend))
    dg = dg + dstart.flip(3).cumsum(3).flip(3) + dkept.sum((3, 5), dtype=dg.dtype)[..., None, :]
    dg[:, :, :, 1:] += dend[:, :, :, :-1].cumsum(3)
    return dg[..., None]


def _carry(states: Float[Tensor, "B G N+1 K R V"], decays: Sequence[Tensor], *, back: bool = False) -> None:
    """Along the chunks, x_{n+1} ← x_{n+1} + kept_n x_n of states that hold what each chunk adds; or `back`,
    x_n ← x_n + kept_n x_{n+1} of their gradients."""
    N = states.shape[2] - 1
    for n in reversed(range(N)) if back else range(N):
        old, new = (states[:, :, n + 1], states[:, :, n]) if back else (states[:, :, n], states[:, :, n + 1])
        if decays:
            new.addcmul_(decays[3][:, :, n], old)
        else:
            new.add_(old)


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
