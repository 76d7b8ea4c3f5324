"""Positive random features with a backward pass that needs no more than them and x, and linear attention of them."""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention import weighted_mean
from zoo.ops.precision import at_least_fp32, no_autocast
from zoo.ops.random_features.naive import HIGHEST, Over, kept, largest


def attend(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B H T d"],
    v: Float[Tensor, "B H T V"],
    W: Float[Tensor, "m d"],
    eps: float,
) -> Float[Tensor, "B H T V"]:
    """See `naive.attend`. ε > 0, as sums of weights are divided by."""
    log_kernel("random_features", "linear attention")
    q, k = positive(q, W, eps, "features"), positive(k, W, eps)
    with no_autocast(q.device):
        return weighted_mean(q, k, v.to(q.dtype), 0.0)[0].to(v.dtype)


def mean(sums: Float[Tensor, "*N V+1"]) -> Float[Tensor, "*N V"]:
    """What is weighed over its weights, the last column; 0 where nothing has a weight, rather than 0/0."""
    total = at_least_fp32(sums[..., -1:])
    return sums[..., :-1] * total.masked_fill(total == 0, 1).reciprocal().to(sums.dtype)


def positive(
    x: Float[Tensor, "B H T d"],
    W: Float[Tensor, "m d"],
    eps: float,
    over: Over | None = None,
    valid: Bool[Tensor, "B 1 T 1"] | None = None,
) -> Float[Tensor, "B H T m"]:
    """See `naive.positive`."""
    log_kernel("random_features", "torch")
    with no_autocast(x.device):
        return PositiveFeatures.apply(x, W, eps, over, valid)


class PositiveFeatures(torch.autograd.Function):
    """Saved are x and the features, dφ(x)/dz = φ(x) − ε."""

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
        if not phi.amax() < highest(phi.dtype):  # or NaN, as in the naive form
            dz.masked_fill_(~(phi < highest(phi.dtype)), 0)
        scale = x.shape[-1] ** -0.25
        dx = dz @ (W.to(at_least_fp32(x).dtype) * scale).to(dz.dtype)
        return dx.sub_(x * (dz.sum(-1, keepdim=True) * scale**2)).to(x.dtype), None, None, None, None


def highest(dtype: torch.dtype) -> float:
    """The feature of an exponent of `HIGHEST` once it is rounded: from there on the slope is 0."""
    return math.exp(HIGHEST) * (1 - 4 * torch.finfo(dtype).eps)
