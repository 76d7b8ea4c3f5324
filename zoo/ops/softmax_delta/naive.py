"""The delta rule with softmax attention as its memory, one token at a time (Zhong et al. 2025, arXiv:2505.19488).

    u_t = v_t − β_t Σ_{j < t} softmax_{j < t}(q_t·k_j / √K) u_j

What a step adds to the memory is its value less what the memory holds for its query. The first step finds nothing.
"""

from typing import TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.carried_attention.naive import all_valid
from zoo.ops.precision import promote


class Stored(TypedDict):
    """The memory after some steps."""

    k: Float[Tensor, "B H P-1 K"]
    u: Float[Tensor, "B H P-1 V"]
    """In float32 at least."""
    valid: Bool[Tensor, "B 1 P-1"] | None
    """None for all."""


def softmax_delta_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    valid: Bool[Tensor, "B 1 T"] | None = None,
    state: Stored | None = None,
) -> Stored:
    """The memory after these steps, behind those of a state. Later steps do not find a key that is not `valid`."""
    keys, u, valid, dtype = start(q, k, v, beta, valid, state)
    past = keys.shape[2] - q.shape[2]
    for t in range(q.shape[2]):
        S = past + t
        scores = q.shape[3] ** -0.5 * (keys[:, :, :S].to(dtype) * q[:, :, t, None].to(dtype)).sum(-1)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, :, :S], float("-inf"))
        empty = (scores == float("-inf")).all(-1, keepdim=True)
        weights = scores.softmax(-1).masked_fill(empty, 0)
        u_t = v[:, :, t].to(dtype) - beta[:, :, t, None].to(dtype) * (weights[..., None] * u).sum(2)
        u = torch.cat([u, u_t[:, :, None]], dim=2)
    return Stored(k=keys, u=u, valid=valid)


def start(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, valid: Tensor | None, state: Stored | None
) -> tuple[Tensor, Tensor, Tensor | None, torch.dtype]:
    """Keys, and which are valid, of all steps; u of those before; and what is computed in."""
    if state is None:
        dtype = promote(q, k, v, beta)
        return k, v[:, :, :0].to(dtype), valid, dtype
    dtype, past = promote(q, k, v, beta, state["k"], state["u"]), state["k"]
    keys = torch.cat([past, k.to(past.dtype)], dim=2)
    return keys, state["u"].to(dtype), all_valid(past, state["valid"], k, valid), dtype
