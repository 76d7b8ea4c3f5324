"""Causal convolution as long as the sequence: S4, S4D, H3 and Hyena are made of it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zoo.ops import forms
from zoo.ops.long_convolution.fft import convolve as convolve_by_fft
from zoo.ops.long_convolution.naive import convolve as convolve_naive
from zoo.ops.precision import no_autocast, promote
from zoo.ops.step_by_step import finite_or

__all__ = ["convolve", "convolve_naive", "skipping"]

SPAN = 16
"""Steps of the naive form that are computed together."""


@forms.public
def convolve(
    u: Float[Tensor, "B T D"], K: Float[Tensor, "D T"], skip: Float[Tensor, " D"] | float = 0.0
) -> Float[Tensor, "B T D"]:
    """See `naive.convolve`. Computes in float32 at least, autocast or not, and answers in u's dtype.

    Counts the FFTs it needs (`flops.rfft` each): (2B + 1)·D forward and as many backward.
    """
    if not len(u):  # no FFT has nothing to do
        return u.clone()
    with no_autocast(u.device):
        dtype = promote(u, K)
        y = (forms.choose("long_convolution", u, K) or convolve_by_fft)(u, skipping(K.to(dtype), skip))
        return finite_or(y, lambda: _by_steps(u.to(dtype), K.to(dtype), skip).to(u.dtype))


def _by_steps(u: Tensor, K: Tensor, skip: Tensor | float) -> Tensor:
    """The naive form, which keeps no more than its inputs for the backward pass."""
    spans = []
    for start in range(0, u.shape[1], SPAN):
        inputs = u[:, : start + SPAN], K[:, : start + SPAN], skip, start
        spans.append(checkpoint(convolve_naive, *inputs, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(spans, dim=1)


def skipping(K: Float[Tensor, "*B T"], skip: Float[Tensor, "*B"] | float) -> Float[Tensor, "*B T"]:
    """The kernel of K ∗ u + skip ⊙ u."""
    return torch.select_scatter(K, K[..., 0] + skip, dim=-1, index=0)
