"""Causal convolution as long as the sequence: S4, S4D, H3 and Hyena are made of it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.long_convolution.fft import convolve as convolve_by_fft
from zoo.ops.long_convolution.naive import convolve as convolve_naive
from zoo.ops.precision import promote

__all__ = ["convolve", "convolve_naive", "skipping"]


@forms.falls_back
def convolve(
    u: Float[Tensor, "B T D"], K: Float[Tensor, "D T"], skip: Float[Tensor, " D"] | float = 0.0
) -> Float[Tensor, "B T D"]:
    """See `naive.convolve`. Computes in float32 at least, autocast or not, and answers in u's dtype.

    Counts the FFTs it needs (`flops.rfft` each): (2B + 1)·D forward and as many backward.

    Raises:
        ValueError: K is not (D, T).
    """
    if K.shape != (u.shape[2], u.shape[1]):
        raise ValueError(f"convolve: the kernel is {tuple(K.shape)}, expected {(u.shape[2], u.shape[1])}")
    if form := forms.choose("long_convolution", u, K):
        dtype = promote(u, K)
        return form(u, K.to(dtype), torch.as_tensor(skip, dtype=dtype).expand(len(K)))
    return convolve_by_fft(u, skipping(K, skip))


def skipping(K: Float[Tensor, "*B T"], skip: Float[Tensor, "*B"] | float) -> Float[Tensor, "*B T"]:
    """The kernel of K ∗ u + skip ⊙ u."""
    return torch.cat([(K[..., 0] + skip)[..., None], K[..., 1:]], dim=-1)
