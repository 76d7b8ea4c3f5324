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

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.precision import promote


def delta_rule_step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    beta: Float[Tensor, "B H"],
    log_decay: Float[Tensor, "B H"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H V"], Float[Tensor, "B H K V"]]:
    """One token: its output (in v's dtype) and the next state (at least float32). `log_decay` is ln α_t ≤ 0."""
    dtype = promote(q, k, v, beta, log_decay, state)
    q, k, written, beta = q.to(dtype), k.to(dtype), v.to(dtype), beta.to(dtype)
    S = _zero(k, v, dtype) if state is None else state.to(dtype)
    if log_decay is not None:
        S = log_decay.to(dtype).exp()[..., None, None] * S
    written = beta[..., None] * (written - _read(S, k))
    S = S + k[..., :, None] * written[..., None, :]
    return _read(S, q).to(v.dtype), S


def delta_rule_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    log_decay: Float[Tensor, "B H T"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """T calls of `delta_rule_step`: outputs and the final state. Without a `state` it starts from zero."""
    outputs = []
    S = _zero(k[:, :, 0], v[:, :, 0], promote(q, k, v, beta, log_decay)) if state is None else state
    for t in range(q.shape[2]):
        now = None if log_decay is None else log_decay[:, :, t]
        o, S = delta_rule_step(q[:, :, t], k[:, :, t], v[:, :, t], beta[:, :, t], now, S)
        outputs.append(o)
    return torch.stack(outputs, dim=2), S


def dplr_step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    a: Float[Tensor, "B H K"],
    b: Float[Tensor, "B H K"],
    log_decay: Float[Tensor, "B H K"],
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H V"], Float[Tensor, "B H K V"]]:
    """One token: its output (in v's dtype) and the next state (at least float32). `log_decay` is ln w_t ≤ 0."""
    dtype = promote(q, k, v, a, b, log_decay, state)
    S = _zero(k, v, dtype) if state is None else state.to(dtype)
    removed = b.to(dtype)[..., :, None] * _read(S, a.to(dtype))[..., None, :]
    added = k.to(dtype)[..., :, None] * v.to(dtype)[..., None, :]
    S = log_decay.to(dtype).exp()[..., :, None] * S + removed + added
    return _read(S, q.to(dtype)).to(v.dtype), S


def dplr_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    a: Float[Tensor, "B H T K"],
    b: Float[Tensor, "B H T K"],
    log_decay: Float[Tensor, "B H T K"],
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """T calls of `dplr_step`: outputs and the final state. Without a `state` it starts from zero."""
    outputs = []
    S = _zero(k[:, :, 0], v[:, :, 0], promote(q, k, v, a, b, log_decay)) if state is None else state
    for t in range(q.shape[2]):
        q_t, k_t, v_t, a_t, b_t, w_t = (x[:, :, t] for x in (q, k, v, a, b, log_decay))
        o, S = dplr_step(q_t, k_t, v_t, a_t, b_t, w_t, S)
        outputs.append(o)
    return torch.stack(outputs, dim=2), S


def _read(S: Float[Tensor, "B H K V"], k: Float[Tensor, "B H K"]) -> Float[Tensor, "B H V"]:
    """Sᵀ k."""
    return (k[..., :, None] * S).sum(-2)


def _zero(k: Float[Tensor, "B H K"], v: Float[Tensor, "B H V"], dtype: torch.dtype) -> Float[Tensor, "B H K V"]:
    return k.new_zeros(*k.shape, v.shape[-1], dtype=dtype)
