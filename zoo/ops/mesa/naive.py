"""The mesa layer as it reads, one token at a time: each solves its own least squares (von Oswald et al. 2025,
arXiv:2506.05233, section 2).

    G_t = a_t G_{t−1} + β_t k_t k_tᵀ,    S_t = a_t S_{t−1} + β_t k_t v_tᵀ,    o_t = S_tᵀ (G_t + diag λ)⁻¹ q_t

(G_t + diag λ)⁻¹ S_t is what minimises the sum over s ≤ t of ½ β_s a_{s+1} ⋯ a_t |Wᵀ k_s − v_s|² + ½ tr Wᵀ diag(λ) W. No
scale is applied to q or k: that is the caller's choice. A step with β_t = 0 and ln a_t = 0 leaves both states alone.
"""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.precision import promote

Memory: TypeAlias = tuple[Float[Tensor, "B H K K"], Float[Tensor, "B H K V"]]
"""G and S."""


def mesa_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    log_decay: Float[Tensor, "B H T"],
    ridge: Float[Tensor, "H K"],
    state: Memory | None = None,
) -> tuple[Float[Tensor, "B H T V"], Memory]:
    """Outputs in v's dtype and the final G and S, float32 at least, from a state or zero.

    `log_decay` is ln a_t ≤ 0, of which −inf forgets all; `ridge` is λ > 0.
    """
    dtype, outputs = promote(q, k, v, beta, log_decay, ridge, *(state or ())), []
    G, S = (x.to(dtype) for x in (zero(k, v) if state is None else state))
    for t in range(q.shape[2]):
        q_t, k_t, v_t, beta_t, g_t = (x[:, :, t].to(dtype) for x in (q, k, v, beta, log_decay))
        decay, written = g_t.exp()[..., None, None], beta_t[..., None, None] * k_t[..., :, None]
        G, S = decay * G + written * k_t[..., None, :], decay * S + written * v_t[..., None, :]
        solved = torch.linalg.solve(G + torch.diag_embed(ridge.to(dtype)), q_t)
        outputs.append((solved[..., :, None] * S).sum(-2).to(v.dtype))
    return torch.stack(outputs, dim=2), (G, S)


def zero(k: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T V"]) -> Memory:
    """G and S before the first step."""
    K, V = k.shape[3], v.shape[3]
    return k.new_zeros(*k.shape[:2], K, K), k.new_zeros(*k.shape[:2], K, V)
