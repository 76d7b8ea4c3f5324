"""The delta rule in chunks, its backward pass written out: matmuls, and one triangular inverse a chunk.

Within a chunk of C steps, let S be the state before it, c_t = ln α_1 + … + ln α_t summed from its start, Γ_ts =
e^{c_t − c_s}, and u_t what step t writes along k_t. Unrolling the delta rule gives C coupled equations, lower
triangular (the WY or UT form: Yang et al. 2024, arXiv:2406.06484, section 3.2; with decay arXiv:2412.06464, section
3.3). With diagonal matrices β, D_tt = e^{c_t} and E_ss = e^{c_C − c_s}, and

    M_ts = Γ_ts k_t·k_s  (s < t),    P_ts = Γ_ts q_t·k_s  (s ≤ t)

they are solved for u = β e by

    e = (I + M β)⁻¹ (V − D K S),    o = D Q S + P u,    S ← e^{c_C} S + (E K)ᵀ u

The first two read S and u by the same pair of matrices, [M; P] u + D [K; Q] S. Backward, with dS of the state behind
the chunk, f = du and Z = [−β f; do] the gradient of that pair of readings:

    β f = (I + M β)⁻ᵀ β (Pᵀ do + E K dS),    f = Pᵀ do + E K dS − Mᵀ β f,    dv = β f,    dβ_t = e_t·f_t
    Y = (Z uᵀ) ⊙ Γ,    [dk; dq] = D Z Sᵀ + Y K,    dk += Yᵀ [K; Q] + E u dSᵀ,    dS ← e^{c_C} dS + (D [K; Q])ᵀ Z

A log decay c_t raises what is read at t and lowers what is written there; what both share cancels in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops, forms
from zoo.ops.linear_attention.chunked import segments


class WY(torch.autograd.Function):
    """Outputs (B, H, T, V) in v's dtype and the last state, in S's: see the module.

    Matmuls run in `dtype`; decays, the inverse and the carried state in S's.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,
        log_decay: Tensor | None,
        S: Tensor,
        C: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        (B, H, T, K), V = q.shape, v.shape[-1]
        N = -(-T // C)
        rows = q.new_empty(N, B, H, 2 * C, K, dtype=dtype)  # [K; Q]
        values = q.new_empty(N, B, H, C, V, dtype=dtype)
        cut(k, C, rows[..., :C, :])
        cut(q, C, rows[..., C:, :])
        cut(v, C, values)
        rows, values = rows.flatten(1, 2), values.flatten(1, 2)
        b = cut(beta[..., None], C, q.new_empty(N, B, H, C, 1, dtype=S.dtype)).flatten(1, 2)
        K_ = rows[:, :, :C]
        pairs = torch.bmm(rows.flatten(0, 1), K_.flatten(0, 1).mT).unflatten(0, (N, -1))
        spans = from_start = to_end = None
        kept, keys = S.new_ones(N, 1, 1, 1), K_
        if log_decay is None:
            pairs[:, :, :C].tril_(-1)
            pairs[:, :, C:].tril_()
        else:
            g = cut(log_decay[..., None], C, q.new_empty(N, B, H, C, 1, dtype=S.dtype)).flatten(1, 2)
            exact = segments(g).squeeze(-1).exp_()
            c = g.cumsum(-2)
            from_start, to_end, kept = (x.exp() for x in (c.repeat(1, 1, 2, 1), _behind(g), c[:, :, -1:]))
            spans = exact.to(dtype)
            pairs[:, :, :C].mul_(spans).tril_(-1)
            pairs[:, :, C:].mul_(spans)
            keys = (to_end * K_).to(dtype)
        solve = inverse((pairs[:, :, :C] * b.mT).flatten(0, 1)).to(dtype).unflatten(0, (N, -1))
        before = rows.new_empty(N, B * H, K, V)
        e, u, o = torch.empty_like(values), torch.empty_like(values), torch.empty_like(values)
        S = S.flatten(0, 1)
        for n in range(N):
            read = torch.bmm(rows[n], before[n].copy_(S))
            if from_start is not None:
                read = (from_start[n] * read).to(dtype)
            torch.bmm(solve[n], values[n].sub_(read[:, :C]), out=e[n])
            torch.mul(b[n], e[n], out=u[n])
            torch.baddbmm(read[:, C:], pairs[n, :, C:], u[n], out=o[n])
            S = (kept[n] * S).add_(torch.bmm(keys[n].mT, u[n]))
        ctx.save_for_backward(rows, b, pairs, solve, before, e, u, keys, kept, spans, from_start, to_end)
        ctx.shape = B, H, T, C
        ctx.dtypes = [x.dtype for x in (q, k, v, beta)] + [None if log_decay is None else log_decay.dtype]
        return join(o, B, T, v.dtype), S.unflatten(0, (B, H))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Tensor, dS: Tensor) -> tuple[Tensor | None, ...]:
        rows, b, pairs, solve, before, e, u, keys, kept, spans, from_start, to_end = ctx.saved_tensors
        B, H, T, C = ctx.shape
        N, dtype = len(rows), rows.dtype
        Z = do.new_empty(N, B, H, 2 * C, u.shape[-1], dtype=dtype)
        cut(do, C, Z[..., C:, :])
        Z = Z.flatten(1, 2)
        f = torch.bmm(pairs[:, :, C:].flatten(0, 1).mT, Z[:, :, C:].flatten(0, 1)).unflatten(0, (N, -1))
        behind = torch.empty_like(before)
        dS = dS.flatten(0, 1)
        for n in range(N - 1, -1, -1):
            f[n].baddbmm_(keys[n], behind[n].copy_(dS))
            torch.neg(torch.bmm(solve[n].mT, (b[n] * f[n]).to(dtype)), out=Z[n, :, :C])
            read = Z[n] if from_start is None else (from_start[n] * Z[n]).to(dtype)
            dS = (kept[n] * dS).add_(torch.bmm(rows[n].mT, read))
        last = dS.unflatten(0, (B, H))
        rows, pairs, before, behind, e, u, f, Z = (x.flatten(0, 1) for x in (rows, pairs, before, behind, e, u, f, Z))
        f.baddbmm_(pairs[:, :C].mT, Z[:, :C])
        db = (e * f).sum(-1, dtype=b.dtype)
        Y = torch.bmm(Z, u.mT)
        d_rows, d_keys, dc = torch.bmm(Z, before.mT), torch.bmm(u, behind.mT), None
        if from_start is None:
            Y[:, :C].tril_(-1)
            Y[:, C:].tril_()
        else:
            shared = Y.to(b.dtype) * pairs
            d_rows = (from_start.flatten(0, 1) * d_rows).to(dtype)
            d_keys = to_end.flatten(0, 1) * d_keys
            by_row = shared.sum(-1) + (rows * d_rows).sum(-1, dtype=b.dtype)
            written = (rows[:, :C] * d_keys).sum(-1)
            dc = by_row[:, :C] + by_row[:, C:] - shared.sum(-2) - written
            through = (before.to(b.dtype) * behind).sum((-2, -1)) * kept.flatten()
            dc[:, -1] += written.sum(-1) + through
            dc = dc.flip(-1).cumsum(-1).flip(-1)
            Y[:, :C].mul_(spans.flatten(0, 1)).tril_(-1)
            Y[:, C:].mul_(spans.flatten(0, 1))
            d_keys = d_keys.to(dtype)
        d_rows.baddbmm_(Y, rows[:, :C])
        d_keys.baddbmm_(Y.mT, rows).add_(d_rows[:, :C])
        dq, dk, dv, db = (
            join(x.unflatten(0, (N, -1)), B, T, to)
            for x, to in zip((d_rows[:, C:], d_keys, Z[:, :C], db[..., None]), ctx.dtypes, strict=False)
        )
        dg = None if dc is None else join(dc[..., None].unflatten(0, (N, -1)), B, T, ctx.dtypes[-1]).squeeze(-1)
        return dq, dk, dv.neg_(), db.squeeze(-1), dg, last, None, None


def _behind(g: Float[Tensor, "*N C 1"]) -> Float[Tensor, "*N C 1"]:
    """Σ_{r>t} g_r, added up from the end."""
    from_end = g.flip(-2).cumsum(-2).flip(-2)
    return torch.cat([from_end[..., 1:, :], torch.zeros_like(g[..., :1, :])], dim=-2)


def cut(x: Float[Tensor, "B H T F"], C: int, out: Float[Tensor, "N B H C F"]) -> Float[Tensor, "N B H C F"]:
    """Copy `x` into `out`, chunks of C steps, zero behind the last step."""
    whole, rest = divmod(x.shape[2], C)
    out[:whole] = x[:, :, : whole * C].unflatten(2, (whole, C)).permute(2, 0, 1, 3, 4)
    if rest:
        out[whole, ..., :rest, :] = x[:, :, whole * C :]
        out[whole, ..., rest:, :] = 0
    return out


def join(x: Float[Tensor, "N BH C F"], B: int, T: int, dtype: torch.dtype) -> Float[Tensor, "B H T F"]:
    """The inverse of `cut`, contiguous as (B, T, H, F)."""
    N, BH, C, F = x.shape
    out = x.new_empty(B, N, C, BH // B, F, dtype=dtype)
    out.copy_(x.unflatten(1, (B, -1)).permute(1, 0, 3, 2, 4))
    return out.flatten(1, 2)[:, :T].transpose(1, 2)


def inverse(coupling: Float[Tensor, "N C C"]) -> Float[Tensor, "N C C"]:
    """(I + coupling)⁻¹; coupling is strictly lower triangular."""
    flops.count("delta_rule", coupling.numel() * coupling.shape[-1] // 3)
    if forms.supports(coupling):
        from zoo.ops.cpu.dplr import inverse as by_loop  # loads numba

        return by_loop(coupling)
    eye = torch.eye(coupling.shape[-1], dtype=coupling.dtype, device=coupling.device).expand_as(coupling)
    return torch.linalg.solve_triangular(coupling, eye, upper=False, unitriangular=True)
