"""A linear model W that gradient descent trains on the tokens as they come, one at a time (Sun et al. 2024,
arXiv:2407.04620, sections 2.4 and 2.6).

    ℓ_t(W) = ½ |LN(Wᵀ k_t) − y_t|²,    G_t = Σ_{s ≤ t} η_s ∂ℓ_s/∂W at W,    z_t = (W − c_t G_t)ᵀ q_t

where s runs over the tokens of a mini-batch, all of which see the W before it; behind its last token W ← W − c_t G_t.
"""

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.ops.precision import promote

Learner: TypeAlias = tuple[Float[Tensor, "B H K V"], Float[Tensor, "B H K V"], Int[Tensor, " B"]]
"""W before the mini-batch that is under way, G so far, and how many of its tokens came."""


def ttt_linear_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    y: Float[Tensor, "B H T V"],
    rate: Float[Tensor, "B H T"],
    step: Float[Tensor, "#B #H T"],
    weight: Float[Tensor, "H V"],
    bias: Float[Tensor, "H V"],
    W: Float[Tensor, "B H K V"],
    under_way: tuple[Float[Tensor, "B H K V"], Int[Tensor, " B"]] | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
    *,
    size: int,
    eps: float = 1e-6,
) -> tuple[Float[Tensor, "B H T V"], Learner]:
    """Every z_t in y's dtype, and what comes next, float32 at least.

    Args:
        rate, step: η_t and c_t. weight, bias: of the layer norm LN, whose ε is `eps`.
        under_way: G and the count of tokens of a mini-batch that began before; None where one begins now.
        mask: true on valid steps; the others, on the right, leave everything alone.
        size: tokens in a mini-batch.
    """
    dtype = promote(q, k, y, rate, step, weight, bias, W, *(under_way or ())[:1])
    W, weight, bias, outputs = W.to(dtype), weight.to(dtype), bias.to(dtype), []
    G, count = (torch.zeros_like(W), _none(W)) if under_way is None else (under_way[0].to(dtype), under_way[1])
    for t in range(q.shape[2]):
        q_t, k_t, y_t, rate_t, step_t = (x[:, :, t].to(dtype) for x in (q, k, y, rate, step))
        slope = rate_t[..., None] * slopes(_read(W, k_t), y_t, weight, bias, eps)
        after, step_t = G + k_t[..., :, None] * slope[..., None, :], step_t[..., None, None]
        outputs.append(_read(W - step_t * after, q_t).to(y.dtype))
        valid = torch.ones_like(count, dtype=torch.bool) if mask is None else mask[:, t]
        full = (valid & (count == size - 1))[:, None, None, None]
        W = torch.where(full, W - step_t * after, W)
        G = torch.where(full, 0, torch.where(valid[:, None, None, None], after, G))
        count = (count + valid) % size
    return torch.stack(outputs, dim=2), (W, G, count)


def slopes(
    z: Float[Tensor, "*N V"],
    y: Float[Tensor, "*N V"],
    weight: Float[Tensor, "*M V"],
    bias: Float[Tensor, "*M V"],
    eps: float,
) -> Float[Tensor, "*N V"]:
    """∂/∂z of ½ |LN(z) − y|², LN(z) = weight ⊙ ẑ + bias with ẑ = (z − mean z) / √(var z + ε)."""
    centred = z - z.mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    unit = centred * inverse
    e = weight * (weight * unit + bias - y)
    return inverse * (e - e.mean(-1, keepdim=True) - unit * (e * unit).mean(-1, keepdim=True))


def _none(W: Float[Tensor, "B H K V"]) -> Int[Tensor, " B"]:
    """No token of a mini-batch yet."""
    return torch.zeros(len(W), dtype=torch.long, device=W.device)


def _read(W: Float[Tensor, "B H K V"], x: Float[Tensor, "B H K"]) -> Float[Tensor, "B H V"]:
    """Wᵀ x."""
    return (x[..., :, None] * W).sum(-2)
