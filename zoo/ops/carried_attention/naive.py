"""Softmax attention to keys that every later step changes, one token at a time.

    k_j ← A_t k_j  (j < t),    f_j ← f_j + f_t  (j < t),    o_t = Σ_{j ≤ t} softmax_j(q_t·k_j / √K + f_j) v_j

Each step carries all keys before it along, then adds its own, which it does not change. In path attention (Yang et al.
2025, arXiv:2505.16381, section 3) A_t = I − β_t w_t w_tᵀ, in Wall attention (Averbuch & Pai 2026) A_t = diag(e^{g_t}).
The fade f is a bias of each head, of which a step takes f_t ≤ 0 from all before it (Lin et al. 2025, arXiv:2503.02130).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.linear_attention.naive import repeat
from zoo.ops.precision import promote


class Carried(NamedTuple):
    """What a step reads of the S before it."""

    k: Float[Tensor, "B G S K"]
    """Keys as the last step left them, in float32 at least."""
    v: Float[Tensor, "B J S V"]
    valid: Bool[Tensor, "B 1 S"] | None = None
    """None for all."""
    fade: Float[Tensor, "B H S"] | None = None
    """f_j, in float32 at least; None where nothing fades."""


def path_attention_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B J T V"],
    w: Float[Tensor, "B G T K"],
    beta: Float[Tensor, "B G T"],
    fade: Float[Tensor, "B H T"] | None = None,
    valid: Bool[Tensor, "B 1 T"] | None = None,
    state: Carried | None = None,
) -> tuple[Float[Tensor, "B H T V"], Carried]:
    """Outputs in v's dtype, and all keys as the last step leaves them, with their values.

    Heads of k and of v may be fewer than those of q; each then serves as many neighbouring query heads. A key that is
    not `valid` is seen by its own query alone. Steps with β_t = 0 leave keys alone, those with f_t = 0 the fade.
    """

    def carry(keys: Tensor, t: int) -> Tensor:
        w_t, beta_t = w[:, :, t, :, None].to(keys.dtype), beta[:, :, t, None, None].to(keys.dtype)
        return keys - beta_t * (keys @ w_t) @ w_t.mT

    return _step_by_step(q, k, v, carry, promote(q, k, v, w, beta, fade), fade, valid, state)


def wall_attention_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B J T V"],
    log_decay: Float[Tensor, "B H T K"],
    fade: Float[Tensor, "B H T"] | None = None,
    valid: Bool[Tensor, "B 1 T"] | None = None,
    state: Carried | None = None,
) -> tuple[Float[Tensor, "B H T V"], Carried]:
    """As `path_attention_naive`. `log_decay` is g_t ≤ 0, of every query head, which all have keys of their own."""

    def carry(keys: Tensor, t: int) -> Tensor:
        return keys * log_decay[:, :, t, None].to(keys.dtype).exp()

    k = repeat(k, q.shape[1])
    return _step_by_step(q, k, v, carry, promote(q, k, v, log_decay, fade), fade, valid, state)


def start(
    k: Tensor, v: Tensor, dtype: torch.dtype, fade: Tensor | None, valid: Tensor | None, state: Carried | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Keys and fades before the first step; values, and which keys are valid, of all steps."""
    if state is None:
        keys = k[:, :, :0].to(dtype)
        return keys, v, valid, None if fade is None else fade[:, :, :0].to(dtype)
    if valid is not None or state.valid is not None:
        valid = torch.cat([_all(x) if x.valid is None else x.valid for x in (state, Carried(k, v, valid))], dim=2)
    values = torch.cat([state.v, v.to(state.v.dtype)], dim=2)
    return state.k.to(dtype), values, valid, None if state.fade is None else state.fade.to(dtype)


def _all(of: Carried) -> Bool[Tensor, "B 1 S"]:
    return torch.ones(len(of.k), 1, of.k.shape[2], dtype=torch.bool, device=of.k.device)


def _step_by_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    carry: Callable[[Tensor, int], Tensor],
    dtype: torch.dtype,
    fade: Tensor | None,
    valid: Tensor | None,
    state: Carried | None,
) -> tuple[Float[Tensor, "B H T V"], Carried]:
    H, outputs, scale = q.shape[1], [], q.shape[3] ** -0.5
    keys, values, valid, faded = start(k, v, dtype, fade, valid, state)
    for t in range(q.shape[2]):
        S = keys.shape[2]
        keys = torch.cat([carry(keys, t), k[:, :, t : t + 1].to(dtype)], dim=2)
        scores = scale * (repeat(keys, H) @ q[:, :, t, :, None].to(dtype)).squeeze(-1)
        if fade is not None and faded is not None:
            f_t = fade[:, :, t, None].to(dtype)
            faded = torch.cat([faded + f_t, torch.zeros_like(f_t)], dim=2)
            scores = scores + faded
        if valid is not None:
            unseen = torch.cat([~valid[:, :, :S], torch.zeros_like(valid[:, :, :1])], dim=2)
            scores = scores.masked_fill(unseen, float("-inf"))
        seen = repeat(values[:, :, : S + 1], H).to(dtype)
        outputs.append((scores.softmax(-1)[..., None] * seen).sum(2).to(v.dtype))
    return torch.stack(outputs, dim=2), Carried(keys, values, valid, faded)
