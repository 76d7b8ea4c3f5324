"""Softmax attention to keys that every later step changes, one token at a time.

    k_j ← A_t k_j  (j < t),    f_j ← f_j + f_t  (j < t),    o_t = Σ_{j ≤ t} softmax_j(q_t·k_j / √K + f_j) v_j

Each step carries all keys before it along, then adds its own, which it does not change. In path attention (Yang et al.
2025, arXiv:2505.16381, section 3) A_t = I − β_t w_t w_tᵀ, in Wall attention (Averbuch & Pai 2026) A_t = diag(e^{g_t}).
The fade f is a bias of each head, of which a step takes f_t ≤ 0 from all before it (Lin et al. 2025, arXiv:2503.02130).
"""

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.linear_attention.naive import repeat
from zoo.ops.precision import promote


class Carried(TypedDict):
    """What a step reads of those before it, but for the keys."""

    v: Float[Tensor, "B J P-1 V"]
    valid: Bool[Tensor, "B 1 P-1"] | None
    """None for all."""
    fade: Float[Tensor, "B H P-1"] | None
    """f_j; None for 0."""


class PathState(Carried):
    """Keys as the last step left them, in float32 at least."""

    k: Float[Tensor, "B G P-1 K"]


class WallState(Carried):
    """Keys of every query head as the last step left them, in float32 at least."""

    k: Float[Tensor, "B H P-1 K"]


def path_attention_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B J T V"],
    w: Float[Tensor, "B G T K"],
    beta: Float[Tensor, "B G T"],
    fade: Float[Tensor, "B H T"] | None = None,
    valid: Bool[Tensor, "B 1 T"] | None = None,
    state: PathState | None = None,
) -> tuple[Float[Tensor, "B H T V"], PathState]:
    """Outputs in v's dtype, and all keys as the last step leaves them, with their values.

    Heads of k and of v may be fewer than those of q; each then serves as many neighbouring query heads. A key that is
    not `valid` is seen by its own query alone. Steps with β_t = 0 leave keys alone, those with f_t = 0 the fade.
    """

    def carry(keys: Tensor, t: int) -> Tensor:
        w_t, beta_t = w[:, :, t, None].to(keys.dtype), beta[:, :, t, None, None].to(keys.dtype)
        return keys - beta_t * (keys * w_t).sum(-1, keepdim=True) * w_t

    return _step_by_step(q, k, v, carry, wide(state, q, k, v, w, beta, fade), fade, valid, state)


def wall_attention_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B J T V"],
    log_decay: Float[Tensor, "B H T K"],
    fade: Float[Tensor, "B H T"] | None = None,
    valid: Bool[Tensor, "B 1 T"] | None = None,
    state: WallState | None = None,
) -> tuple[Float[Tensor, "B H T V"], WallState]:
    """As `path_attention_naive`. `log_decay` is g_t ≤ 0, of every query head, which all have keys of their own."""

    def carry(keys: Tensor, t: int) -> Tensor:
        return keys * log_decay[:, :, t, None].to(keys.dtype).exp()

    k = repeat(k, q.shape[1])
    return _step_by_step(q, k, v, carry, wide(state, q, k, v, log_decay, fade), fade, valid, state)


def wide(state: Any, *inputs: Tensor | None) -> torch.dtype:
    """What scores and carried keys are computed in."""
    return promote(*inputs) if state is None else promote(*inputs, state["k"], state["v"], state["fade"])


def start(
    k: Tensor, v: Tensor, dtype: torch.dtype, fade: Tensor | None, valid: Tensor | None, state: Any
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Keys before the first step; values, and which keys are valid, of all steps; fades of the steps and before them.

    Both fades are None where nothing fades.
    """
    if state is None:
        return k[:, :, :0].to(dtype), v, valid, fade, None if fade is None else fade[:, :, :0]
    valid = all_valid(state["k"], state["valid"], k, valid)
    values, faded = torch.cat([state["v"], v.to(state["v"].dtype)], dim=2), state["fade"]
    if fade is not None or faded is not None:
        B, H = (faded if fade is None else fade).shape[:2]
        fade = k.new_zeros(B, H, k.shape[2], dtype=dtype) if fade is None else fade
        faded = k.new_zeros(B, H, state["k"].shape[2], dtype=dtype) if faded is None else faded
    return state["k"].to(dtype), values, valid, fade, faded


def all_valid(
    past: Float[Tensor, "B G P-1 K"], past_valid: Tensor | None, k: Float[Tensor, "B G T K"], valid: Tensor | None
) -> Bool[Tensor, "B 1 S"] | None:
    """Which of the earlier and the new keys, side by side, are valid; None for all, given and returned."""
    if past_valid is None and valid is None:
        return None
    found = [
        torch.ones(len(keys), 1, keys.shape[2], dtype=torch.bool, device=keys.device) if mask is None else mask
        for keys, mask in ((past, past_valid), (k, valid))
    ]
    return torch.cat(found, dim=2)


def _step_by_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    carry: Callable[[Tensor, int], Tensor],
    dtype: torch.dtype,
    fade: Tensor | None,
    valid: Tensor | None,
    state: Any,
) -> tuple[Float[Tensor, "B H T V"], Any]:
    H, outputs, scale = q.shape[1], [], q.shape[3] ** -0.5
    keys, values, valid, fade, faded = start(k, v, dtype, fade, valid, state)
    for t in range(q.shape[2]):
        S = keys.shape[2]
        keys = torch.cat([carry(keys, t), k[:, :, t : t + 1].to(dtype)], dim=2)
        scores = scale * (repeat(keys, H) * q[:, :, t, None].to(dtype)).sum(-1)
        if fade is not None and faded is not None:
            f_t = fade[:, :, t, None].to(dtype)
            faded = torch.cat([faded.to(dtype) + f_t, torch.zeros_like(f_t)], dim=2)
            scores = scores + faded
        if valid is not None:
            unseen = torch.cat([~valid[:, :, :S], torch.zeros_like(valid[:, :, :1])], dim=2)
            scores = scores.masked_fill(unseen, float("-inf"))
        seen = repeat(values[:, :, : S + 1], H).to(dtype)
        outputs.append((scores.softmax(-1)[..., None] * seen).sum(2).to(v.dtype))
    return torch.stack(outputs, dim=2), {"k": keys, "v": values, "valid": valid, "fade": faded}
