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
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops, forms, precision
from zoo.ops.delta_rule import naive, official
from zoo.ops.linear_attention.chunked import segments, split
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
        floor: a number that no log decay is below (RWKV-7: −e^{−½}). With it chunks are matmuls, short enough that no
            factor overflows; without it, or where factors do because the promise is badly broken, steps follow one by
            one.
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
        if form is None and floor is not None:
            safe = max(1, int(2 * LARGEST_EXPONENT / max(1e-9, -floor)))  # 1e-9 if NaN
            form = partial(low_rank_chunked, C=min(LOW_RANK_CHUNK, T, safe))
        if form is not None:
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


def low_rank_chunked(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_decay: Tensor, S: Tensor, C: int
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """The diagonal-plus-low-rank rule in chunks of C steps, whose pairs (t, s) are products of two factors each."""
    T = q.shape[2]
    q, k, V, a, b, g = (split(x, C) for x in (q, k, v, a, b, log_decay))
    c = g.cumsum(-2)
    earlier = torch.cat([torch.zeros_like(c[..., :1, :]), c[..., :-1, :]], dim=-2)  # c_{t-1}
    middle = c[..., C // 2, None, :].detach()  # cancels: any value serves, the middle keeps both factors small
    by_a, by_q, undo = (earlier - middle).exp() * a, (c - middle).exp() * q, (middle - c).exp()
    ab, ak = ((by_a @ (undo * x).mT).tril(-1) for x in (b, k))
    qb, qk = ((by_q @ (undo * x).mT).tril() for x in (b, k))
    to_end = (c[..., -1:, :] - c).exp()
    both = torch.cat([ak @ V, -earlier.exp() * a], dim=-1)
    both = torch.linalg.solve_triangular(-ab, both, upper=False, unitriangular=True)
    work = both.numel() * C  # C²/2 multiply-adds a column, and as many for the transposed solve
    flops.count("delta_rule", work)
    flops.count_backward(both, "delta_rule", work)
    U, W = both.split([V.shape[-1], a.shape[-1]], dim=-1)
    added, kept, written = (to_end * k).mT @ V, c[..., -1, :, None].exp(), (to_end * b).mT
    before, us = [], []
    for n in range(U.shape[2]):
        before.append(S)
        us.append(U[:, :, n] - W[:, :, n] @ S)
        S = kept[:, :, n] * S + written[:, :, n] @ us[-1] + added[:, :, n]
    o = (c.exp() * q) @ torch.stack(before, dim=2) + qb @ torch.stack(us, dim=2) + qk @ V
    return o.flatten(2, 3)[:, :, :T], S
