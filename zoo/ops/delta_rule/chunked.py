"""Delta rules in chunks: matmuls and one triangular solve within a chunk, one carried state between chunks.

Within a chunk of C steps, let S be the state before it, c_t = ln α_1 + … + ln α_t summed from its start, and u_t what
step t writes along k_t. Unrolling the delta rule gives C coupled equations, lower triangular (the WY or UT form: Yang
et al. 2024, arXiv:2406.06484, section 3.2; with decay arXiv:2412.06464, section 3.3):

    u_t + Σ_{s<t} β_t e^{c_t − c_s} (k_t·k_s) u_s = β_t v_t − β_t e^{c_t} Sᵀ k_t
    o_t = e^{c_t} Sᵀ q_t + Σ_{s≤t} e^{c_t − c_s} (q_t·k_s) u_s
    S ← e^{c_C} S + Σ_s e^{c_C − c_s} k_s u_sᵀ

The right-hand side is linear in S, so one solve for β v and β e^c k serves whatever S turns out to be: u = U − W S. The
diagonal-plus-low-rank rule is alike, u_t = S_{t-1}ᵀ a_t being what b_t writes:

    u_t − Σ_{s<t} (e^{c_{t-1} − c_s} ⊙ a_t)·b_s u_s = Σ_{s<t} (e^{c_{t-1} − c_s} ⊙ a_t)·k_s v_s + Sᵀ (e^{c_{t-1}} ⊙ a_t)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops, forms, precision
from zoo.ops.delta_rule import naive, official
from zoo.ops.delta_rule.wy import WY
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention.chunked import CHANNEL_CHUNK, segments, split
from zoo.ops.precision import promote

# e^40 is far from float32's largest number, e^88, and leaves the other factor of each pair as far from its smallest.
LARGEST_EXPONENT = 40.0


def delta_rule(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    log_decay: Float[Tensor, "B H T"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs (in v's dtype) and final state of `naive.delta_rule_naive`, for any T, in float32 at least.

    The state stays bounded where β_t |k_t|² ≤ 2; beyond, the rule itself diverges, in every form.

    Args:
        log_decay: ln α_t ≤ 0 per head; −inf forgets all. None for no decay.
        state: what to continue from; None for zero.
        chunk: steps per chunk.
    """
    B, H, T, K = q.shape
    if T == 1:
        now = None if log_decay is None else log_decay[:, :, 0]
        o, S = naive.delta_rule_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], beta[:, :, 0], now, state)
        return o[:, :, None], S
    if (served := official.delta_rule(q, k, v, beta, log_decay, state)) is not None:
        return served
    log_kernel("delta_rule", "chunked")
    with precision.no_autocast(q.device):
        wide = promote(q, k, v, beta, log_decay, state)
        S = q.new_zeros(B, H, K, v.shape[-1], dtype=wide) if state is None else state.to(wide)
        half = q.dtype == k.dtype == v.dtype == torch.bfloat16
        if half and wide is torch.float32 and forms.has_matmul_kernel(torch.bfloat16, q, k, v):
            from zoo.ops.cpu.delta_rule import TiledWY  # loads numba

            log_kernel("delta_rule", f"chunked, on {forms.matmul_backend(torch.bfloat16)}")
            g = None if log_decay is None else log_decay.to(wide)
            return TiledWY.apply(q, k, v, beta.to(wide), g, S)
        o, S = WY.apply(q, k, v, beta, log_decay, S, min(chunk, T), torch.bfloat16 if half else wide)
        return o, S


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
    chunk: int = 32,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs (in v's dtype) and final state of `naive.dplr_naive`, for any T, in float32 at least.

    Args:
        log_decay: ln w_t ≤ 0 per channel; −inf forgets all.
        state: what to continue from; None for zero.
        floor: a number that no log decay is below (RWKV-7: −e^{−½}). With it the pairs (t, s) of a chunk are matmuls of
            two factors, in chunks short enough that neither overflows; a promise badly broken ends in inf or NaN, not
            in wrong numbers. None for any decay: pairs are formed one by one, which is slower.
        chunk: steps per chunk, fewer where `floor` asks for it, at most `CHANNEL_CHUNK` without one.
    """
    B, H, T, K = q.shape
    if T == 1:
        q, k, v, a, b, log_decay = (x[:, :, 0] for x in (q, k, v, a, b, log_decay))
        o, S = naive.dplr_step(q, k, v, a, b, log_decay, state)
        return o[:, :, None], S
    if (served := official.dplr(q, k, v, a, b, log_decay, state)) is not None:
        return served
    dtype = promote(q, k, v, a, b, log_decay, state)
    wide = [x.to(dtype) for x in (q, k, v, a, b, log_decay)]
    S = q.new_zeros(B, H, K, v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
    if forms.supports(*wide, S):
        from zoo.ops.cpu.dplr import CompiledDPLR  # loads numba

        log_kernel("dplr", "compiled loop")
        o, S = CompiledDPLR.apply(*wide, S)
        return o.to(v.dtype), S
    log_kernel("dplr", "chunked")
    limit = CHANNEL_CHUNK
    if floor is not None:
        limit = chunk if floor == 0 else max(1, int(2 * LARGEST_EXPONENT / abs(floor)))
    C = min(chunk, T, limit)
    with precision.no_autocast(q.device):
        q, k, V, a, b, g = (split(x, C) for x in wide)
        c = g.cumsum(-2)
        earlier = torch.cat([torch.zeros_like(c[..., :1, :]), c[..., :-1, :]], dim=-2)  # c_{t-1}
        if floor is None:
            spans = segments(g)
            upto = spans.exp()
            # Σ_{s<r<t} g_r: the row before. The first row sees nothing.
            before_t = torch.cat([torch.zeros_like(upto[..., :1, :, :]), upto[..., :-1, :, :]], dim=-3)
            ab, ak = (_pairs(before_t, a, x) for x in (b, k))
            qb, qk = (_pairs(upto, q, x) for x in (b, k))
            to_end = upto[..., -1, :, :]
        else:
            middle = c[..., C // 2, None, :].detach()  # cancels: any value serves, the middle keeps both factors small
            read, asked, undo = (earlier - middle).exp() * a, (c - middle).exp() * q, (middle - c).exp()
            ab, ak = ((read @ (undo * x).transpose(-1, -2)).tril(-1) for x in (b, k))
            qb, qk = ((asked @ (undo * x).transpose(-1, -2)).tril() for x in (b, k))
            to_end = (c[..., -1:, :] - c).exp()
        U, W = _solve(-ab, ak @ V, -earlier.exp() * a)
        added = (to_end * k).transpose(-1, -2) @ V
        S, before, u = _carry(S, c[..., -1, :].exp(), U, W, to_end * b, added)
        o = (c.exp() * q) @ before + qb @ u + qk @ V
        return o.flatten(2, 3)[:, :, :T].to(v.dtype), S


def _pairs(
    weights: Float[Tensor, "*N C C K"], x: Float[Tensor, "*N C K"], y: Float[Tensor, "*N C K"]
) -> Float[Tensor, "*N C C"]:
    """Σ_i weights_tsi x_ti y_si."""
    return (weights * x[..., :, None, :] * y[..., None, :, :]).sum(-1)


def _solve(
    coupling: Float[Tensor, "*N C C"], U: Float[Tensor, "*N C V"], W: Float[Tensor, "*N C K"]
) -> tuple[Float[Tensor, "*N C V"], Float[Tensor, "*N C K"]]:
    """(I + coupling)⁻¹ applied to U and to W; coupling is strictly lower triangular."""
    both = torch.linalg.solve_triangular(coupling, torch.cat([U, W], dim=-1), upper=False, unitriangular=True)
    work = (
        both.numel() * coupling.shape[-1]
    )  # C²/2 multiply-adds for each right-hand side; matmuls are counted by torch
    flops.count("delta_rule", work)
    if both.requires_grad:
        both.register_hook(lambda grad: flops.count("delta_rule", work))  # the transposed solve
    solved_U, solved_W = both.split([U.shape[-1], W.shape[-1]], dim=-1)
    return solved_U, solved_W


def _carry(
    S: Float[Tensor, "B H K V"],
    kept: Float[Tensor, "B H N F"],
    U: Float[Tensor, "B H N C V"],
    W: Float[Tensor, "B H N C K"],
    written: Float[Tensor, "B H N C K"],
    added: Float[Tensor, "B H N K V"] | None = None,
) -> tuple[Float[Tensor, "B H K V"], Float[Tensor, "B H N K V"], Float[Tensor, "B H N C V"]]:
    """u = U − W S, then S ← diag(kept) S + writtenᵀ u (+ added), chunk after chunk: last S, S before each, every u."""
    before, us = [], []
    for n in range(U.shape[2]):
        before.append(S)
        us.append(U[:, :, n] - W[:, :, n] @ S)
        S = kept[:, :, n, :, None] * S + written[:, :, n].transpose(-1, -2) @ us[-1]
        if added is not None:
            S = S + added[:, :, n]
    return S, torch.stack(before, dim=2), torch.stack(us, dim=2)
