"""The delta rule with softmax attention as its memory, one token at a time (Zhong et al. 2025, arXiv:2505.19488).

    u_t = v_t − β_t Σ_{j < t} softmax_{j < t}(q_t·k_j / √K) u_j

What a step adds to the memory is its value less what the memory holds for its query. The first step finds nothing.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.precision import promote


def softmax_delta_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    valid: Bool[Tensor, "B 1 S"] | None = None,
    u: Float[Tensor, "B H _ V"] | None = None,
) -> Float[Tensor, "B H S V"]:
    """u of S steps, in float32 at least: what is given of the first S − T, and that of the T behind them.

    Keys that are not `valid` are not found; None for all.
    """
    dtype = promote(q, k, v, beta, u)
    past = k.shape[2] - q.shape[2]
    k, u = k.to(dtype), v[:, :, :0].to(dtype) if u is None else u.to(dtype)
    for t in range(q.shape[2]):
        S = past + t
        scores = q.shape[3] ** -0.5 * (k[:, :, :S] * q[:, :, t, None].to(dtype)).sum(-1)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, :, :S], float("-inf"))
        empty = (scores == float("-inf")).all(-1, keepdim=True)
        weights = scores.softmax(-1).masked_fill(empty, 0)
        found = (weights[..., None] * u).sum(2)
        u_t = v[:, :, t].to(dtype) - beta[:, :, t, None].to(dtype) * found
        u = torch.cat([u, u_t[:, :, None]], dim=2)
    return u
