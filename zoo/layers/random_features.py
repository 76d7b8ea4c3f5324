"""Positive random features of the softmax kernel (Choromanski et al. 2021, arXiv:2009.14794, Lemma 1), and causal
attention by them.

φ(x) = exp(W x − |x|²/2 − c) + ε,    x scaled by d^{-¼}
y_t = Σ_{s ≤ t} φ(q_t)·φ(k_s) v_s / Σ_{s ≤ t} φ(q_t)·φ(k_s)
"""

import math
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.forms import computes
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention import weighted_mean
from zoo.ops.precision import at_least_fp32, no_autocast

Over: TypeAlias = Literal["features", "sequence"]
HIGHEST = 64.0
"""The largest exponent: its e still is far from the largest float32, also as a sum over steps."""


def attend_naive(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B H T d"],
    v: Float[Tensor, "B H T V"],
    W: Float[Tensor, "m d"],
    eps: float,
) -> Float[Tensor, "B H T V"]:
    """y, with c the largest entry of W q_t for a query, which cancels in y but for ε, and 0 for a key."""
    weights = (positive_naive(q, W, eps, "features") @ positive_naive(k, W, eps).mT).tril()
    return weights / weights.sum(-1, keepdim=True) @ v


@computes(attend_naive)
def attend(q, k, v, W, eps):  # type: ignore[no-untyped-def]
    """ε > 0, as sums of weights are divided by."""
    log_kernel("random_features", "linear attention")
    q, k = positive(q, W, eps, "features"), positive(k, W, eps)
    with no_autocast(q.device):
        return weighted_mean(q, k, v.to(q.dtype), 0.0)[0].to(v.dtype)


def positive_naive(
    x: Float[Tensor, "B H T d"],
    W: Float[Tensor, "m d"],
    eps: float,
    over: Over | None = None,
    valid: Bool[Tensor, "B 1 T 1"] | None = None,
) -> Float[Tensor, "B H T m"]:
    """φ(x), with c the largest entry of W x over the features of a step, or over all valid ones of a sequence; or 0.

    c and W are constants for the gradient, and no exponent passes `HIGHEST`. Exponents are formed in float32 at
    least: a bfloat16 one is off by per cents of e; features are in x's dtype but float16, for which e^64 is too large.
    """
    scaled = at_least_fp32(x) * x.shape[-1] ** -0.25
    z = scaled @ W.detach().to(scaled.dtype).T
    z = z - scaled.square().sum(-1, keepdim=True) / 2 - largest(z.detach(), over, valid)
    return (z.clamp(max=HIGHEST).exp() + eps).to(kept(x))


@computes(positive_naive)
def positive(x, W, eps, over=None, valid=None):  # type: ignore[no-untyped-def]
    """Saves x and the features alone for the backward pass."""
    log_kernel("random_features", "torch")
    with no_autocast(x.device):
        return PositiveFeatures.apply(x, W, eps, over, valid)


class PositiveFeatures(torch.autograd.Function):
    """dφ(x)/dz = φ(x) − ε."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, eps: float, over: Over | None, valid: Tensor | None) -> Tensor:
        scaled = at_least_fp32(x) * x.shape[-1] ** -0.25
        z = scaled @ W.to(scaled.dtype).T
        z.sub_(scaled.square().sum(-1, keepdim=True) / 2 + largest(z, over, valid))
        phi = z.clamp_(max=HIGHEST).exp_().add_(eps).to(kept(x))
        ctx.save_for_backward(x, W, phi)
        ctx.eps = eps
        return phi

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dphi: Tensor) -> tuple[Tensor | None, ...]:
        x, W, phi = ctx.saved_tensors
        dz = (phi - ctx.eps).mul_(dphi)
        # The feature of an exponent of `HIGHEST` once it is rounded: from there on the slope is 0.
        highest = math.exp(HIGHEST) * (1 - 4 * torch.finfo(phi.dtype).eps)
        if not phi.amax() < highest:  # or NaN, as in the naive form
            dz.masked_fill_(~(phi < highest), 0)
        scale = x.shape[-1] ** -0.25
        dx = dz @ (W.to(at_least_fp32(x).dtype) * scale).to(dz.dtype)
        return dx.sub_(x * (dz.sum(-1, keepdim=True) * scale**2)).to(x.dtype), None, None, None, None


def largest(
    z: Float[Tensor, "B H T m"], over: Over | None, valid: Bool[Tensor, "B 1 T 1"] | None
) -> Float[Tensor, "B H #T 1"] | float:
    """c of z = W x; 0 where there is no valid step."""
    if over is None:
        return 0.0
    if over == "features":
        return z.amax(-1, keepdim=True)
    c = (z if valid is None else z.masked_fill(~valid, float("-inf"))).amax((-1, -2), keepdim=True)
    return c.masked_fill(c == float("-inf"), 0)


def kept(x: Tensor) -> torch.dtype:
    """What features are kept in."""
    return torch.float32 if x.dtype is torch.float16 else x.dtype
