"""The causal convolution by FFT, y = irfft(rfft(u) rfft(K)), zero-padded to at least 2T − 1: nothing wraps around."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops
from zoo.ops.precision import promote


def convolve(u: Float[Tensor, "B T D"], K: Float[Tensor, "D T"]) -> Float[Tensor, "B T D"]:
    """As `naive.convolve`."""
    (B, T, D), n, dtype = u.shape, fast_length(2 * u.shape[1] - 1), promote(u, K)
    U, F = torch.fft.rfft(u.mT.to(dtype), n=n), torch.fft.rfft(K.to(dtype), n=n)
    y = torch.fft.irfft(U * F, n=n)[..., :T].mT.to(u.dtype)
    flops.count("long_convolution", work(B, T, D))
    flops.count_backward(y, "long_convolution", work(B, T, D))
    return y


def work(B: int, T: int, D: int) -> int:
    """FLOPs of one direction."""
    return (2 * B + 1) * D * flops.rfft(fast_length(2 * T - 1))


@cache
def fast_length(least: int) -> int:
    """The smallest even number from `least` on with no prime factor above 5, which FFTs like.

    Example:
        >>> fast_length(255)
        256
    """
    n = max(2, least + least % 2)
    while pow(30, n.bit_length(), n):  # some prime of n is not in 30 = 2 · 3 · 5
        n += 2
    return n
