"""The mLSTM cell, one step at a time (Beck et al. 2024, arXiv:2405.04517, section 2.3 and, for m, 2.2;
official: NX-AI/xlstm, xlstm/blocks/mlstm/backends.py, recurrent_step_stabilized_simple).

    m_t = max(ln σ(f_t) + m_{t−1}, i_t),    F_t = e^{ln σ(f_t) + m_{t−1} − m_t},    I_t = e^{i_t − m_t}
    C_t = F_t C_{t−1} + I_t (k_t/√d) v_tᵀ,    n_t = F_t n_{t−1} + I_t k_t/√d
    h_t = C_tᵀ q_t / (max(|n_t · q_t|, e^{−m_t}) + ε)

The memory is e^m C and e^m n; but for ε, no output depends on m.
"""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

MLSTMState: TypeAlias = tuple[Float[Tensor, "B H K V"], Float[Tensor, "B H K"], Float[Tensor, "B H"]]
"""C, n and m."""

LARGEST = 80.0
"""e^80 stands for all beyond: an output divided by more is 0 in any case, and float32 ends at e^88."""


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
) -> tuple[Float[Tensor, "B H T V"], MLSTMState]:
    """All h_t and the state after them, from the gates' pre-activations. Where `mask` is false the state stays."""
    C, n, m = init_state(q, v) if state is None else state
    outputs = []
    for t in range(q.shape[2]):
        q_t, k_t, v_t, i_t = q[:, :, t], k[:, :, t] / k.shape[-1] ** 0.5, v[:, :, t], igate[:, :, t]
        kept = F.logsigmoid(fgate[:, :, t]) + m
        m_t = torch.maximum(kept, i_t)
        F_t, I_t = torch.exp(kept - m_t)[..., None], torch.exp(i_t - m_t)[..., None]
        n_t = F_t * n + I_t * k_t
        C_t = F_t[..., None] * C + (I_t * k_t)[..., :, None] * v_t[..., None, :]
        weight = torch.maximum((q_t * n_t).sum(-1).abs(), (-m_t).clamp(max=LARGEST).exp()) + eps
        outputs.append((q_t[..., None] * C_t).sum(-2) / weight[..., None])
        if mask is None:
            C, n, m = C_t, n_t, m_t
        else:
            on = mask[:, t, None]
            C = torch.where(on[..., None, None], C_t, C)
            n, m = torch.where(on[..., None], n_t, n), torch.where(on, m_t, m)
    return torch.stack(outputs, dim=2), (C, n, m)


def init_state(q: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T V"]) -> MLSTMState:
    """C, n and m before the first step: zeros."""
    (B, H, _, K), V = q.shape, v.shape[-1]
    return q.new_zeros(B, H, K, V), q.new_zeros(B, H, K), q.new_zeros(B, H)
