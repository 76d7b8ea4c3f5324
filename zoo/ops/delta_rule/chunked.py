"""Delta rules in chunks: matmuls and one triangular solve within a chunk, one carried state between chunks.

Within a chunk of C steps, let S be the state before it, c_t = ln α_1 + … + ln α_t summed from its start, Γ_ts =
e^{c_t − c_s}, and u_t what step t writes along k_t. Unrolling the delta rule gives C coupled equations, lower
triangular (the WY or UT form: Yang et al. 2024, arXiv:2406.06484, section 3.2; with decay arXiv:2412.06464, section
3.3). With diagonal matrices β, D_tt = e^{c_t} and E_ss = e^{c_C − c_s}, and

    M_ts = Γ_ts k_t·k_s  (s < t),    P_ts = Γ_ts q_t·k_s  (s ≤ t)

they are solved for u = β e by

    e = (I + M β)⁻¹ (V − D K S),    o = D Q S + P u,    S ← e^{c_C} S + (E K)ᵀ u

The first two read S and u by the same pair of matrices, [M; P] u + D [K; Q] S. The diagonal-plus-low-rank rule is
alike, u_t = S_{t-1}ᵀ a_t being what b_t writes, U − W S the solution for whatever S turns out to be:

    u_t − Σ_{s<t} (e^{c_{t-1} − c_s} ⊙ a_t)·b_s u_s = Σ_{s<t} (e^{c_{t-1} − c_s} ⊙ a_t)·k_s v_s + Sᵀ (e^{c_{t-1}} ⊙ a_t)

Its decays stand inside the products of pairs: see `by_factors` and `by_halves`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops, forms, precision
from zoo.ops.delta_rule import naive, official
from zoo.ops.linear_attention.chunked import doubled, halves, segments, split
from zoo.ops.step_by_step import finite, step_by_step

LARGEST_EXPONENT = 40.0
"""e^40 is far from float32's largest number, e^88, and leaves a pair's other factor as far from its smallest."""

CHUNK, LOW_RANK_CHUNK = 64, 32
"""Steps per chunk, at most, of the delta rule and of the diagonal-plus-low-rank one."""


@forms.computes(naive.delta_rule_naive)
def delta_rule(q, k, v, beta, log_decay=None, state=None):  # type: ignore[no-untyped-def]
    """For any T, in float32 at least, but for products of q, k and v in bfloat16."""
    B, H, T, K = q.shape
    if T == 1:
        return naive.delta_rule_naive(q, k, v, beta, log_decay, state)
    if (served := official.delta_rule(q, k, v, beta, log_decay, state)) is not None:
        return served
    with precision.no_autocast(q.device):
        wide = precision.promote(q, k, v, beta, log_decay, state)
        dtype = torch.bfloat16 if q.dtype == k.dtype == v.dtype == torch.bfloat16 else wide
        S = q.new_zeros(B, H, K, v.shape[-1], dtype=wide) if state is None else state.to(wide)
        b, g = beta.to(wide), None if log_decay is None else log_decay.to(wide)
        form = forms.choose("delta_rule", q, k, v, b, g, S, matmul_dtype=dtype) or partial(chunked, C=min(CHUNK, T))
        o, S = form(q.to(dtype), k.to(dtype), v.to(dtype), b, g, S)
    if finite(o, S):
        return o.to(v.dtype), S
    return step_by_step(naive.delta_rule_naive, (q, k, v, beta, log_decay), state)


@forms.public
def dplr(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    a: Float[Tensor, "B H T K"],
    b: Float[Tensor, "B H T K"],
    log_decay: Float[Tensor, "B H T K"],
    state: Float[Tensor, "B H K V"] | None = None,
    *,
    floor: float | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs (in v's dtype) and final state of `naive.dplr_naive`, for any T, in float32 at least.

    Args:
        log_decay: ln w_t ≤ 0 per channel; −inf forgets all.
        state: what to continue from; None for zero.
        floor: a number that no log decay is below (RWKV-7: −e^{−½}). With it the pairs of a chunk are one matmul, in
            chunks short enough that no factor overflows; without it they are log₂ C matmuls. Where factors do overflow,
            because the promise is badly broken, steps follow one by one.
    """
    inputs = q, k, v, a, b, log_decay
    B, H, T, K = q.shape
    if T == 1:
        return naive.dplr_naive(*inputs, state)
    if (served := official.dplr(*inputs, state)) is not None:
        return served
    with precision.no_autocast(q.device):
        wide = precision.promote(*inputs, state)
        S = q.new_zeros(B, H, K, v.shape[-1], dtype=wide) if state is None else state.to(wide)
        exact: Any = [x.to(wide) for x in inputs]
        form: Any = forms.choose("dplr", *exact, S)
        if form is None:
            C, pairs = min(LOW_RANK_CHUNK, T), by_factors
            if floor is None:
                C, pairs = 1 << (C.bit_length() - 1), by_halves
            else:
                C = min(C, max(1, int(2 * LARGEST_EXPONENT / max(1e-9, -floor))))  # 1e-9 if NaN
            form = partial(low_rank_chunked, C=C, pairs=pairs)
        o, S = form(*exact, S)
    if finite(o, S):
        return o.to(v.dtype), S
    return step_by_step(naive.dplr_naive, inputs, state)


def chunked(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None, S: Tensor, C: int
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """The delta rule in chunks of C steps; matmuls in q's dtype, decays, the inverse and the carried state in S's."""
    T, dtype, V, b = q.shape[2], q.dtype, split(v, C), split(beta[..., None], C)
    K = written = split(k, C)
    rows = torch.cat([K, split(q, C)], dim=3)  # [K; Q]: (B, H, N, 2C, K)
    pairs = rows @ K.mT
    M, P = pairs[..., :C, :], pairs[..., C:, :]
    from_start = kept = None
    if g is not None:
        g = split(g[..., None], C)
        spans, from_start = segments(g).squeeze(-1).exp(), g.cumsum(3).exp()
        M, P, written = (x.to(dtype) for x in (spans * M, spans * P, spans[..., -1, :, None] * K))
        from_start, kept = torch.cat([from_start] * 2, dim=3), from_start[..., -1:, :]
    solve, P = inverse(M.tril(-1) * b.mT).to(dtype), P.tril()
    outputs = []
    for n in range(V.shape[2]):
        read = rows[:, :, n] @ S.to(dtype)
        if from_start is not None:
            read = (from_start[:, :, n] * read).to(dtype)
        u = (b[:, :, n] * (solve[:, :, n] @ (V[:, :, n] - read[:, :, :C]))).to(dtype)
        outputs.append(read[:, :, C:] + P[:, :, n] @ u)
        S = (S if kept is None else kept[:, :, n] * S) + written[:, :, n].mT @ u
    return torch.cat(outputs, dim=2)[:, :, :T], S


def inverse(coupling: Float[Tensor, "*N C C"]) -> Float[Tensor, "*N C C"]:
    """(I + coupling)⁻¹; coupling is strictly lower triangular."""
    flops.count("delta_rule", coupling.numel() * coupling.shape[-1] // 3)
    eye = torch.eye(coupling.shape[-1], dtype=coupling.dtype, device=coupling.device).expand_as(coupling)
    return torch.linalg.solve_triangular(coupling, eye, upper=False, unitriangular=True)


class Pairs(NamedTuple):
    """Of the steps in a chunk: a_t and q_t by b_s and k_s with the decay between them, for s < t and s ≤ t; and the log
    decays from the chunk's start to what a_t and q_t read, and from behind a step to the chunk's end."""

    ab: Float[Tensor, "B H N C C"]
    ak: Float[Tensor, "B H N C C"]
    qb: Float[Tensor, "B H N C C"]
    qk: Float[Tensor, "B H N C C"]
    to_a: Float[Tensor, "B H N C K"]
    to_q: Float[Tensor, "B H N C K"]
    to_end: Float[Tensor, "B H N C K"]


def low_rank_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    log_decay: Tensor,
    S: Tensor,
    C: int,
    pairs: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Pairs],
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """The diagonal-plus-low-rank rule in chunks of C steps."""
    T = q.shape[2]
    q, k, V, a, b, g = (split(x, C) for x in (q, k, v, a, b, log_decay))
    ab, ak, qb, qk, to_a, to_q, to_end = pairs(q, k, a, b, g)
    both = torch.cat([ak @ V, -to_a.exp() * a], dim=-1)
    both = torch.linalg.solve_triangular(-ab, both, upper=False, unitriangular=True)
    work = both.numel() * C  # C²/2 multiply-adds a column, and as many for the transposed solve
    flops.count("delta_rule", work)
    flops.count_backward(both, "delta_rule", work)
    U, W = both.split([V.shape[-1], a.shape[-1]], dim=-1)
    added, kept, written = (to_end.exp() * k).mT @ V, to_q[..., -1, :, None].exp(), (to_end.exp() * b).mT
    before, us = [], []
    for n in range(U.shape[2]):
        before.append(S)
        us.append(U[:, :, n] - W[:, :, n] @ S)
        S = kept[:, :, n] * S + written[:, :, n] @ us[-1] + added[:, :, n]
    o = (to_q.exp() * q) @ torch.stack(before, dim=2) + qb @ torch.stack(us, dim=2) + qk @ V
    return o.flatten(2, 3)[:, :, :T], S


def by_factors(q: Tensor, k: Tensor, a: Tensor, b: Tensor, g: Tensor) -> Pairs:
    """In one matmul each: the decay of a pair is the product of two factors, of which one grows as decays sum up."""
    c = g.cumsum(-2)
    earlier = torch.cat([torch.zeros_like(c[..., :1, :]), c[..., :-1, :]], dim=-2)  # c_{t-1}
    middle = c[..., c.shape[-2] // 2, None, :].detach()  # cancels; about the middle both factors stay small
    by_a, by_q, undo = (earlier - middle).exp() * a, (c - middle).exp() * q, (middle - c).exp()
    ab, ak = ((by_a @ (undo * x).mT).tril(-1) for x in (b, k))
    qb, qk = ((by_q @ (undo * x).mT).tril() for x in (b, k))
    return Pairs(ab, ak, qb, qk, earlier, c, c[..., -1:, :] - c)


def by_halves(q: Tensor, k: Tensor, a: Tensor, b: Tensor, g: Tensor) -> Pairs:
    """For any decay, in chunks of a power of two: the later half of a block meets the earlier one about its middle, and
    no factor exceeds 1, as in `zoo.ops.linear_attention.chunked.halved`."""
    C, size, rows, columns = g.shape[-2], 1, torch.stack([a, q], dim=-3), torch.stack([b, k], dim=-3)
    own = q[..., None, :, :] * columns
    blocks = torch.stack([torch.zeros_like(own), own], dim=-4).sum(-1)[..., None, None]  # (B, H, N, 2, 2, C, 1, 1)
    from_start = torch.stack([torch.zeros_like(g), g], dim=-3)  # a reads before its step's decay, q behind it
    total = g[..., None, :, :]
    to_end = torch.zeros_like(total)
    while size < C:
        later = halves(rows, size)[1] * halves(from_start, size)[1].exp()
        earlier = halves(columns, size)[0] * halves(to_end, size)[0].exp()
        met = later[..., :, None, :, :, :] @ earlier[..., None, :, :, :, :].mT
        first, second = blocks[..., 0::2, :, :], blocks[..., 1::2, :, :]
        blocks = torch.cat([F.pad(first, (0, size)), torch.cat([met, second], dim=-1)], dim=-2)
        from_start, to_end, total = doubled(from_start, to_end, total, size)
        size *= 2
    ab, ak, qb, qk = blocks.squeeze(-3).flatten(-4, -3).unbind(-3)
    to_a, to_q = from_start.unbind(-3)
    return Pairs(ab, ak, qb, qk, to_a, to_q, to_end.squeeze(-3))
