"""The mLSTM cell in chunks: find every m_t first, and what is left is a weighted mean by linear attention.

With a_t = e^{ln σ(f_t) + m_{t−1} − m_t} ≤ 1 and κ_t = e^{i_t − m_t} k_t/√d,

    C_t = a_t C_{t−1} + κ_t v_tᵀ,    n_t = a_t n_{t−1} + κ_t,    h_t = C_tᵀ q_t / (max(|n_t · q_t|, e^{−m_t}) + ε)

m is a max-plus scan, done by doubling in log2 T passes. It cancels out of the outputs (but for ε, whose share we leave
out): no gradient runs through it. The products run in the dtype of q, k and v; gates, stabilisers and the state are
float32 at least.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops.forms import computes
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention.chunked import weighted_mean
from zoo.ops.mlstm.naive import LARGEST, init_state
from zoo.ops.mlstm.naive import mlstm as mlstm_naive
from zoo.ops.precision import at_least_fp32, common_dtype, no_autocast, promote
from zoo.ops.step_by_step import finite


@computes(mlstm_naive)
def mlstm(q, k, v, igate, fgate, state=None, *, mask=None, eps=1e-6):  # type: ignore[no-untyped-def]
    """h and state are float32 at least. Masked steps may hold anything finite."""
    log_kernel("mlstm", "linear attention")
    given = [at_least_fp32(x) for x in (q, k, v, igate, fgate)]
    with no_autocast(q.device):
        wide, narrow = promote(q, k, v, igate, fgate, *(state or ())), common_dtype(q, k, v)
        igate, log_f = igate.to(wide), F.logsigmoid(fgate.to(wide))
        if mask is not None:
            skip = ~mask[:, None]
            log_f, igate = log_f.masked_fill(skip, 0), igate.masked_fill(skip, float("-inf"))
        C, n, m0 = (x.to(wide) for x in (init_state(at_least_fp32(q), at_least_fp32(v)) if state is None else state))
        m = exponents(log_f, igate, m0)
        log_a = log_f + m[..., :-1] - m[..., 1:]
        k = (k * ((igate - m[..., 1:]).exp() * k.shape[3] ** -0.5)[..., None]).to(narrow)
        floor = (-m[..., 1:]).clamp(max=LARGEST).exp()
        h, C, n = weighted_mean(q.to(narrow), k, v.to(narrow), eps, C, n, log_decay=log_a, floor=floor)
        if finite(h, C, n):
            return h.to(wide), (C, n, m[..., -1])
        return mlstm_naive(*given, state, mask=mask, eps=eps)  # NaN and infinities stand where the equations put them


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
