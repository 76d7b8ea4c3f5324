"""Softmax attention with a correction by the covariance of keys and values (Zuo et al. 2026, arXiv:2605.29157).

p_tj = softmax_j(q_t·k_j / √K),    o_t = Σ_j p_tj (1 − r_t·(k_j − k̄_t)) v_j,    k̄_t = Σ_j p_tj k_j
"""

from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.attention.naive import allowed
from zoo.ops.linear_attention.naive import repeat


def parallax(
    q: Float[Tensor, "B H T K"],
    r: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B J S V"],
    *,
    visible: Bool[Tensor, "#B #H #T S"] | None = None,
) -> Float[Tensor, "B H T V"]:
    """Causal attention of T queries over S keys, the last T of which stand where the queries do.

    Query t sees keys up to t + S − T; `visible` narrows it. Heads of k, and of v, may be fewer than those of q; each
    then serves as many neighbouring query heads. The output of a query that sees no key is 0.
    """
    k, v, seen = repeat(k, q.shape[1]), repeat(v, q.shape[1]), allowed(q, k, visible, causal=True)
    assert seen is not None
    p = (q.shape[-1] ** -0.5 * q @ k.mT).masked_fill(~seen, float("-inf")).softmax(-1)
    p = p.masked_fill(~seen.any(-1, keepdim=True), 0)
    moved = (r @ k.mT).masked_fill(~seen, 0)
    return p * (1 + (p * moved).sum(-1, keepdim=True) - moved) @ v
