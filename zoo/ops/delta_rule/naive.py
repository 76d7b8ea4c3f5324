"""Delta rules as the recurrences read, one token at a time.

The delta rule (Widrow & Hoff 1960; Schlag et al. 2021, arXiv:2102.11174, section 4.2), with a decay α_t (Yang et al.
2024, arXiv:2412.06464, section 3.1): the state first forgets, then what it returns for k_t moves by β_t towards v_t.

    S ← α_t S_{t-1},    S_t = S + β_t k_t (v_t − Sᵀ k_t)ᵀ,    o_t = S_tᵀ q_t

The diagonal-plus-low-rank rule, of which RWKV-7 (Peng et al. 2025, arXiv:2503.14456) is the case a_t = −κ̂_t and
b_t = κ̂_t ⊙ a_t. Here a_t reads the state *before* it decays:

    S_t = diag(w_t) S_{t-1} + b_t (S_{t-1}ᵀ a_t)ᵀ + k_t v_tᵀ,    o_t = S_tᵀ q_t

No scale is applied to q or k: that is the caller's choice. A step with β_t = 0 and ln α_t = 0 (or a_t = k_t = 0 and
ln w_t = 0) leaves the state alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.precision import promote


def delta_rule_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    log_decay: Float[Tensor, "B H T"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs in v's dtype and the final state, float32 at least, from a state or zero.

    The state stays bounded where β_t |k_t|² ≤ 2; beyond, the rule itself diverges, in every form. `log_decay` is ln α_t
    ≤ 0 per head, of which −inf forgets all; None for no decay.
    """
    dtype, outputs = promote(q, k, v, beta, log_decay, state), []
    S = _zero(k, v, dtype) if state is None else state.to(dtype)
    for t in range(q.shape[2]):
        q_t, k_t, v_t, beta_t = (x[:, :, t].to(dtype) for x in (q, k, v, beta))
        if log_decay is not None:
            S = log_decay[:, :, t].to(dtype).exp()[..., None, None] * S
        written = beta_t[..., None] * (v_t - _read(S, k_t))
        S = S + k_t[..., :, None] * written[..., None, :]
        outputs.append(_read(S, q_t).to(v.dtype))
    return torch.stack(outputs, dim=2), S


def dplr_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    a: Float[Tensor, "B H T K"],
    b: Float[Tensor, "B H T K"],
    log_decay: Float[Tensor, "B H T K"],
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs in v's dtype and the final state, float32 at least, from a state or zero. `log_decay` is ln w_t ≤ 0."""
    dtype, outputs = promote(q, k, v, a, b, log_decay, state), []
    S = _zero(k, v, dtype) if state is None else state.to(dtype)
    for t in range(q.shape[2]):
        q_t, k_t, v_t, a_t, b_t, g_t = (x[:, :, t].to(dtype) for x in (q, k, v, a, b, log_decay))
        removed, added = b_t[..., :, None] * _read(S, a_t)[..., None, :], k_t[..., :, None] * v_t[..., None, :]
        S = g_t.exp()[..., :, None] * S + removed + added
        outputs.append(_read(S, q_t).to(v.dtype))
    return torch.stack(outputs, dim=2), S


def _read(S: Float[Tensor, "B H K V"], k: Float[Tensor, "B H K"]) -> Float[Tensor, "B H V"]:
    """Sᵀ k."""
    return (k[..., :, None] * S).sum(-2)


def _zero(k: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T V"], dtype: torch.dtype) -> Float[Tensor, "B H K V"]:
    return k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3], dtype=dtype)
