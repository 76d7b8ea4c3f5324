"""A linear model that is trained on the tokens as they come, one at a time, by the slopes of

    ℓ_t(W) = ½ |LN(Wᵀ k_t) − y_t|²

at the W before the mini-batch of t. By gradient descent (Sun et al. 2024, arXiv:2407.04620, sections 2.4 and 2.6),

    G_t = Σ_{s ≤ t} η_s ∂ℓ_s/∂W,    z_t = (W − c_t G_t)ᵀ q_t

with s in the mini-batch of t; behind its last token W ← W − c_t G_t. And with momentum and forgetting (Behrouz et al.
2025, arXiv:2501.00663, section 3.1), where W is the M before the mini-batch:

    S_t = η_t S_{t−1} − 2 θ_t ∂ℓ_t/∂W,    M_t = a_t M_{t−1} + S_t,    z_t = M_tᵀ q_t
"""

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.ops.precision import promote

Matrix: TypeAlias = Float[Tensor, "B H K V"]
Count: TypeAlias = Int[Tensor, " B"]
"""How many tokens of a mini-batch came."""


def ttt_linear_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    y: Float[Tensor, "B H T V"],
    rate: Float[Tensor, "B H T"],
    step: Float[Tensor, "#B #H T"],
    weight: Float[Tensor, "H V"],
    bias: Float[Tensor, "H V"],
    W: Matrix,
    under_way: tuple[Matrix, Count] | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
    *,
    size: int,
    eps: float = 1e-6,
) -> tuple[Float[Tensor, "B H T V"], tuple[Matrix, Matrix, Count]]:
    """Every z_t in y's dtype, and W, G and the count to continue from, float32 at least.

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


def titans_linear_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    y: Float[Tensor, "B H T V"],
    rate: Float[Tensor, "B H T"],
    log_momentum: Float[Tensor, "B H T"],
    log_decay: Float[Tensor, "B H T"],
    weight: Float[Tensor, "H V"],
    bias: Float[Tensor, "H V"],
    M: Matrix,
    under_way: tuple[Matrix, Matrix, Count] | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
    *,
    size: int,
    eps: float = 1e-6,
) -> tuple[Float[Tensor, "B H T V"], tuple[Matrix, Matrix, Matrix, Count]]:
    """Every z_t in y's dtype, and M, S, W and the count to continue from, float32 at least.

    Args:
        rate: θ_t. log_momentum, log_decay: ln η_t and ln a_t ≤ 0; −inf forgets all.
        weight, bias, mask, size, eps: as above.
        under_way: S, and the W and the count of a mini-batch that began before; None where one begins now, without S.
    """
    dtype = promote(q, k, y, rate, log_momentum, log_decay, weight, bias, M, *(under_way or ())[:2])
    M, weight, bias, outputs = M.to(dtype), weight.to(dtype), bias.to(dtype), []
    S, W, count = (torch.zeros_like(M), M, _none(M)) if under_way is None else under_way
    S, W = S.to(dtype), W.to(dtype)
    for t in range(q.shape[2]):
        q_t, k_t, y_t, rate_t = (x[:, :, t].to(dtype) for x in (q, k, y, rate))
        eta, a = (x[:, :, t, None, None].to(dtype).exp() for x in (log_momentum, log_decay))
        slope = 2 * rate_t[..., None] * slopes(_read(W, k_t), y_t, weight, bias, eps)
        S_t = eta * S - k_t[..., :, None] * slope[..., None, :]
        M_t = a * M + S_t
        outputs.append(_read(M_t, q_t).to(y.dtype))
        valid = torch.ones_like(count, dtype=torch.bool) if mask is None else mask[:, t]
        S, M = (torch.where(valid[:, None, None, None], *both) for both in ((S_t, S), (M_t, M)))
        W = torch.where((valid & (count == size - 1))[:, None, None, None], M, W)
        count = (count + valid) % size
    return torch.stack(outputs, dim=2), (M, S, W, count)


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
