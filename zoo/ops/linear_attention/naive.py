"""Gated linear attention as the recurrence reads, one token at a time (Yang et al. 2024, arXiv:2312.06635, eq. 3).

    S_t = diag(a_t) S_{t-1} + k_t v_tᵀ,    o_t = S_tᵀ q_t

The output reads the state after its update. No scale is applied to q or k: that is the caller's choice. With a_t = 1
it is linear attention (Katharopoulos et al. 2020, arXiv:2006.16236), with a scalar a_t per head RetNet and Mamba-2.

With a bonus u the output reads the state before its update, and the present token by u (Peng et al. 2024,
arXiv:2404.05892, section 4; RWKV-5 and RWKV-6):

    o_t = S_{t-1}ᵀ q_t + (q_t · (u ⊙ k_t)) v_t
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.precision import promote


def step(
    q: Float[Tensor, "B G K"],
    k: Float[Tensor, "B G K"],
    v: Float[Tensor, "B H V"],
    log_decay: Float[Tensor, "#B H"] | Float[Tensor, "#B H K"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
    bonus: Float[Tensor, "H K"] | None = None,
) -> tuple[Float[Tensor, "B H V"], Float[Tensor, "B H K V"]]:
    """One token: its output (in v's dtype) and the next state (at least float32). `log_decay` is ln a_t ≤ 0.

    Each head of q and k serves H/G neighbouring ones of v.
    """
    dtype = promote(q, k, v, log_decay, state, bonus)
    q, k = (repeat(x, v.shape[1]) for x in (q, k))
    S = added = k.to(dtype)[..., :, None] * v.to(dtype)[..., None, :]
    if state is not None:
        S = added + (state if log_decay is None else _rows(log_decay.to(dtype)).exp() * state)
    if bonus is not None:
        read = bonus.to(dtype)[..., None] * added
        read = read if state is None else read + state
    else:
        read = S
    return (q.to(dtype)[..., :, None] * read).sum(-2).to(v.dtype), S


def recurrent(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    log_decay: Float[Tensor, "#B H T"] | Float[Tensor, "#B H T K"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
    bonus: Float[Tensor, "H K"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """T calls of `step`: outputs and the final state. Without a `state` it starts from zero."""
    outputs = []
    for t in range(q.shape[2]):
        now = None if log_decay is None else log_decay[:, :, t]
        o, state = step(q[:, :, t], k[:, :, t], v[:, :, t], now, state, bonus)
        outputs.append(o)
    assert state is not None
    return torch.stack(outputs, dim=2), state


def repeat(x: Float[Tensor, "B G *F"], H: int) -> Float[Tensor, "B H *F"]:
    """Each head H/G times in a row."""
    return x if x.shape[1] == H else x.repeat_interleave(H // x.shape[1], dim=1)


def _rows(decay: Tensor) -> Tensor:
    """A decay (B, H) or (B, H, K) as (B, H, 1 or K, 1), to scale the rows of a state."""
    return decay[..., None, None] if decay.ndim == 2 else decay[..., None]
