"""The mLSTM cell in chunks: find every m_t first, then C and n are matrix products within and between chunks.

With b_t = ln σ(f_1) + … + ln σ(f_t) summed from a chunk's start, and C, n and m_0 the state before it,

    P_ts = (q_t · k_s/√d) e^{b_t − b_s + i_s − m_t} for s ≤ t,    r_t = e^{b_t + m_0 − m_t}
    h_t = (Σ_s P_ts v_s + r_t Cᵀ q_t) / (max(|Σ_s P_ts + r_t n · q_t|, e^{−m_t}) + ε)

Each b_t − b_s is summed over its own steps, never as a difference. m is a max-plus scan, done by doubling in log2 T
passes. It cancels out of the outputs (but for ε, whose share we leave out): no gradient runs through it. The products
run in the dtype of q, k and v; gates, stabilisers, normalisers and the state are float32 at least.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.kernel_log import log_kernel
from zoo.ops.mlstm.naive import MLSTMState, denominator, init_state
from zoo.ops.precision import at_least_fp32, no_autocast, promote


def mlstm(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    igate: Float[Tensor, "B H T"],
    fgate: Float[Tensor, "B H T"],
    state: MLSTMState | None = None,
    *,
    mask: Bool[Tensor, "B T"] | None = None,
    eps: float = 1e-6,
    chunk: int = 64,
) -> tuple[Float[Tensor, "B H T V"], MLSTMState]:
    """See `naive.mlstm`; h and state are float32 at least. Masked steps may hold anything finite."""
    log_kernel("mlstm", "chunked")
    T = q.shape[2]
    with no_autocast(q.device):
        dtype = promote(q, k, v, igate, fgate, *(state or ()))
        narrow = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
        q, k, v = (x.to(narrow) for x in (q, k, v))
        igate, log_f = igate.to(dtype), F.logsigmoid(fgate.to(dtype))
        if mask is not None:
            skip = ~mask[:, None]
            log_f, igate = log_f.masked_fill(skip, 0), igate.masked_fill(skip, float("-inf"))
        C, n, m0 = (x.to(dtype) for x in (init_state(at_least_fp32(q), at_least_fp32(v)) if state is None else state))
        size = min(chunk, T)
        if T % size:  # behind the end nothing is added or forgotten
            q, k, v = (F.pad(x, (0, 0, 0, -T % size)) for x in (q, k, v))
            log_f, igate = F.pad(log_f, (0, -T % size)), F.pad(igate, (0, -T % size), value=float("-inf"))
        m = exponents(log_f, igate, m0)
        h, C, n = _Chunks.apply(q, k, v, igate, log_f, C, n, m, size, eps)
        return h[:, :, :T], (C, n, m[..., -1])


class _Chunks(torch.autograd.Function):
    """h and the last C and n. What is kept for the backward pass: the inputs, each chunk's first state, and h."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        igate: Tensor,
        log_f: Tensor,
        C: Tensor,
        n: Tensor,
        m: Tensor,
        size: int,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (B, H, T, K), V = q.shape, v.shape[-1]
        N, narrow = T // size, q.dtype
        q, k, v = (x.reshape(B * H * N, size, -1) for x in (q, k, v))
        weights, read = _decays(igate, log_f, m, size, K)
        P = torch.bmm(q, k.mT) * weights
        last = weights[:, -1:]
        added = torch.bmm((k * last.mT).to(narrow).mT, v).view(B, H, N, K, V)
        n_added = torch.bmm(last.to(narrow), k).view(B, H, N, K)
        # From here on C and n are those before each chunk.
        kept = read.view(B, H, N, size)[..., -1]
        C_before, n_before = q.new_empty(B, H, N, K, V), n.new_empty(B, H, N, K)
        C, n = C.clone(), n.clone()
        for j in range(N):
            C_before[:, :, j], n_before[:, :, j] = C, n
            C.mul_(kept[:, :, j, None, None]).add_(added[:, :, j])
            n.mul_(kept[:, :, j, None]).add_(n_added[:, :, j])
        total = P.sum(-1) + _dot(q, n_before.view(-1, K)) * read
        scale = denominator(total, m[..., 1:].reshape(-1, size), eps)
        h = torch.bmm(P.to(narrow), v)
        h = torch.baddbmm(h, (q * read[..., None]).to(narrow), C_before.view(-1, K, V)) / scale[..., None]
        ctx.save_for_backward(q, k, v, igate, log_f, m, C_before, n_before, h, total)
        ctx.eps = eps
        return h.view(B, H, T, V), C, n

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dh: Tensor, dC: Tensor, dn: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, igate, log_f, m, C_before, n_before, h, total = ctx.saved_tensors
        (B, H, N, K, V), size, narrow = C_before.shape, q.shape[1], q.dtype
        weights, read = _decays(igate, log_f, m, size, K)
        floor = denominator(torch.zeros_like(total), m[..., 1:].reshape(-1, size), ctx.eps)
        scale = denominator(total, m[..., 1:].reshape(-1, size), ctx.eps)
        dh = dh.reshape(-1, size, V) / scale[..., None]  # of the numerator
        dtotal = -(dh * h).sum(-1) * total.sign() * (scale > floor)
        dnum = dh.to(narrow)
        # The state's gradient behind each chunk, from the last to the first.
        q_read = (q * read[..., None]).to(narrow)
        dC_read = torch.bmm(q_read.mT, dnum).view(B, H, N, K, V)
        dn_read = torch.bmm((dtotal * read).to(narrow)[:, None], q).view(B, H, N, K)
        kept = read.view(B, H, N, size)[..., -1]
        dC_after, dn_after = torch.empty_like(C_before), torch.empty_like(n_before)
        dkept = torch.empty_like(kept)
        dC, dn = dC.clone(), dn.clone()
        for j in reversed(range(N)):
            dC_after[:, :, j], dn_after[:, :, j] = dC, dn
            dkept[:, :, j] = (dC * C_before[:, :, j]).sum((-1, -2)) + (dn * n_before[:, :, j]).sum(-1)
            dC.mul_(kept[:, :, j, None, None]).add_(dC_read[:, :, j])
            dn.mul_(kept[:, :, j, None]).add_(dn_read[:, :, j])
        C_before, dC_after = C_before.view(-1, K, V), dC_after.view(-1, K, V)
        last = weights[:, -1, :, None]
        P = torch.bmm(q, k.mT) * weights
        dP = torch.bmm(dnum, v.mT) + dtotal[..., None]
        dscores = (dP * weights).to(narrow)
        dlog = dP.mul_(P)  # of ln weights
        dq_read = (torch.bmm(dnum, C_before.mT) + dtotal[..., None] * n_before.view(-1, 1, K)) * read[..., None]
        dread = (dq_read * q).sum(-1)
        dread[:, -1] += (dkept * kept).view(-1)
        dq = (dq_read + torch.bmm(dscores, k)).to(narrow)
        dk_last = (torch.bmm(v, dC_after.mT) + dn_after.view(-1, 1, K)) * last
        dlog[:, -1] += (dk_last * k).sum(-1)
        dk = (dk_last + torch.bmm(dscores.mT, q)).to(narrow)
        dv = torch.baddbmm(torch.bmm(P.to(narrow).mT, dnum), (k * last).to(narrow), dC_after)
        # ln σ(f_r) stands in the weights of all s < r ≤ t, and in r_t of all t ≥ r.
        later = torch.ones(size, size, dtype=dlog.dtype, device=dlog.device).triu()
        dlog_f = (later @ dlog).tril(-1).sum(-1) + dread @ later.mT
        gates = (x.view(B, H, N * size) for x in (dlog.sum(-2), dlog_f))
        return *(x.view(B, H, N * size, -1) for x in (dq, dk, dv)), *gates, dC, dn, None, None, None


def _decays(igate: Tensor, log_f: Tensor, m: Tensor, size: int, K: int) -> tuple[Tensor, Tensor]:
    """By chunk, the factor of q_t · k_s (N, t, s), with 1/√d in it, and r_t (N, t)."""
    igate, log_f = igate.reshape(-1, size), log_f.reshape(-1, size)
    before, m = m[..., :-1].reshape(-1, size)[:, 0, None], m[..., 1:].reshape(-1, size)
    spans = log_f[..., None].expand(-1, -1, size).tril(-1).cumsum(-2)
    weights = (spans + (igate[:, None] - m[..., None])).exp_().mul_(K**-0.5).tril_()
    return weights, torch.exp(log_f.cumsum(-1) + before - m)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """x_t · y for every step of a chunk, in y's dtype."""
    return torch.bmm(x, y.to(x.dtype)[..., None]).squeeze(-1).to(y.dtype)


@torch.no_grad()
def exponents(
    log_f: Float[Tensor, "B H T"], igate: Float[Tensor, "B H T"], m0: Float[Tensor, "B H"]
) -> Float[Tensor, "B H T+1"]:
    """m_0 and every m_t = max(log_f_t + m_{t−1}, i_t).

    After each pass `m` and `decay` tell of windows of `span` steps that end at t. Decays are added up window by window:
    as differences of sums from the start they would lose their digits, and e^{i_t − m_t} its bound.
    """
    m, decay = torch.cat([m0[..., None], igate], dim=-1), F.pad(log_f, (1, 0))
    span = 1
    while span < m.shape[-1]:
        later = torch.maximum(m[..., span:], m[..., :-span] + decay[..., span:])
        total = decay[..., span:] + decay[..., :-span]
        m, decay = torch.cat([m[..., :span], later], dim=-1), torch.cat([decay[..., :span], total], dim=-1)
        span *= 2
    return m
