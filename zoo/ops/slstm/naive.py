"""The sLSTM cell, one step at a time (Beck et al. 2024, arXiv:2405.04517, section 2.2; official: NX-AI/xlstm,
xlstm/blocks/slstm/src/vanilla/slstm.py).

    i, f, z, o = gates_t + R h_{t−1} + b        R has one block per head
    m_t = max(ln σ(f) + m_{t−1}, i),    F = e^{ln σ(f) + m_{t−1} − m_t},    I = e^{i − m_t}
    c_t = F c_{t−1} + I tanh(z),    n_t = F n_{t−1} + I,    h_t = σ(o) c_t / n_t

The memory is e^m c and e^m n; m cancels out of h, so no gradient runs through it.
"""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

SLSTMState: TypeAlias = tuple[
    Float[Tensor, "B H d"], Float[Tensor, "B H d"], Float[Tensor, "B H d"], Float[Tensor, "B H d"]
]
"""h, c, n and m."""

LOWEST = -1e38
"""m before the first step, for −∞: finite, so that differences are."""


def slstm(
    i: Float[Tensor, "H B T d"],
    f: Float[Tensor, "H B T d"],
    z: Float[Tensor, "H B T d"],
    o: Float[Tensor, "H B T d"],
    R: Float[Tensor, "H 4 d d"],
    b: Float[Tensor, "H 4 d"],
    state: SLSTMState | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T H d"], SLSTMState]:
    """All h_t and the state after them, from what the gates say about the input. R is R[head, gate, to, from].

    Where `mask` is false the state stays, and h_t with it. n ≥ 1 from the first step on, as F or I is 1.
    """
    if mask is not None:  # whatever stands there, NaN too, reaches no output and no gradient
        i, f, z, o = (x.masked_fill(~mask[..., None], 0) for x in (i, f, z, o))
    h, c, n, m = init_state(i) if state is None else state
    outputs = []
    for t in range(i.shape[2]):
        Wx = torch.stack([gate[:, :, t] for gate in (i, f, z, o)])  # (4, H, B, d)
        i_t, f_t, z_t, o_t = (Wx + torch.einsum("hgij,bhj->ghbi", R, h) + b.transpose(0, 1)[:, :, None]).transpose(1, 2)
        kept = F.logsigmoid(f_t) + m
        m_t = torch.maximum(kept, i_t).detach()
        F_t, I_t = torch.exp(kept - m_t), torch.exp(i_t - m_t)
        c_t, n_t = F_t * c + I_t * torch.tanh(z_t), F_t * n + I_t
        after = torch.sigmoid(o_t) * c_t / n_t, c_t, n_t, m_t
        if mask is None:
            h, c, n, m = after
        else:
            on = mask[:, t, None, None]
            h, c, n, m = (torch.where(on, new, old) for new, old in zip(after, (h, c, n, m), strict=True))
        outputs.append(h)
    return torch.stack(outputs, dim=1), (h, c, n, m)


def init_state(i: Float[Tensor, "H B T d"]) -> SLSTMState:
    """h, c, n and m before the first step: zeros, and m = `LOWEST`."""
    H, B, _, d = i.shape
    zero = i.new_zeros(B, H, d)
    return zero, zero, zero, torch.full_like(zero, LOWEST)
