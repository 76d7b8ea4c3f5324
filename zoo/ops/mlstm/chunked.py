"""The mLSTM cell as gated linear attention: find every m_t first, then C and n are one recurrence with decay F_t.

m is a max-plus scan, done by doubling in log2 T passes. It cancels out of the outputs (but for ε, whose share we
leave out), so no gradient runs through it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops import kernels
from zoo.ops.linear_attention import linear_attention
from zoo.ops.mlstm.naive import MLSTMState, denominator, init_state
from zoo.ops.precision import full, wide


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
    """See `naive.mlstm`. In float32 at least, autocast or not; masked steps may hold anything finite."""
    kernels.ran("mlstm", "chunked")
    with full(q.device):
        q, k, v, igate, fgate = (wide(x) for x in (q, k, v, igate, fgate))
        log_f = F.logsigmoid(fgate)
        if mask is not None:
            skip = ~mask[:, None]
            log_f, igate = log_f.masked_fill(skip, 0), igate.masked_fill(skip, float("-inf"))
        C, n, m0 = init_state(q, v) if state is None else (wide(x) for x in state)
        m = exponents(log_f, igate, m0)
        log_decay = log_f + m[..., :-1] - m[..., 1:]
        m = m[..., 1:]
        k = k * (torch.exp(igate - m) * k.shape[-1] ** -0.5)[..., None]
        # A last column of ones makes n one more column of C.
        y, S = linear_attention(q, k, F.pad(v, (0, 1), value=1.0), log_decay, torch.cat([C, n[..., None]], -1), chunk)
        h = y[..., :-1] / denominator(y[..., -1], m, eps)[..., None]
        return h, (S[..., :-1], S[..., -1], m[..., -1])


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
