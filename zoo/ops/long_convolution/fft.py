"""The causal convolution by FFT, zero-padded to at least 2T − 1 so that nothing wraps around.

y = irfft(rfft(u) rfft(K)),    du = irfft(rfft(dy) conj rfft(K)),    dK = irfft(Σ_b rfft(dy) conj rfft(u))
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops, kernels


def convolve(u: Float[Tensor, "B T D"], K: Float[Tensor, "D T"]) -> Float[Tensor, "B T D"]:
    """See `naive.convolve`. Computes in float32 at least, autocast or not, and answers in u's dtype.

    Counts its FFTs (`flops.rfft` each): (2B + 1)·D forward and as many backward.

    Raises:
        ValueError: K is not (D, T).
    """
    if K.shape != (u.shape[2], u.shape[1]):
        raise ValueError(f"convolve: the kernel is {tuple(K.shape)}, expected {(u.shape[2], u.shape[1])}")
    kernels.ran("long_convolution", "fft")
    dtype = torch.promote_types(torch.promote_types(u.dtype, K.dtype), torch.float32)
    return _Convolve.apply(u.to(dtype), K.to(dtype)).to(u.dtype)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, K: Tensor) -> Tensor:
        B, T, D = u.shape
        n = fast_length(2 * T - 1)
        flops.count("long_convolution", (2 * B + 1) * D * flops.rfft(n))
        U, F = torch.fft.rfft(u.transpose(1, 2).contiguous(), n=n), torch.fft.rfft(K, n=n)
        ctx.save_for_backward(U, F)
        ctx.lengths = T, n
        return torch.fft.irfft(U * F, n=n)[..., :T].transpose(1, 2).contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        U, F = ctx.saved_tensors
        T, n = ctx.lengths
        flops.count("long_convolution", (2 * len(U) + 1) * len(F) * flops.rfft(n))
        G = torch.fft.rfft(dy.transpose(1, 2).contiguous(), n=n)
        du = dK = None
        if ctx.needs_input_grad[0]:
            du = torch.fft.irfft(G * F.conj(), n=n)[..., :T].transpose(1, 2).contiguous()
        if ctx.needs_input_grad[1]:
            dK = torch.fft.irfft((G * U.conj()).sum(0), n=n)[..., :T]
        return du, dK


@cache
def fast_length(least: int) -> int:
    """The smallest even number from `least` on with no prime factor above 5, which FFTs like.

    Example:
        >>> fast_length(255)
        256
    """
    n = max(2, least + least % 2)
    while _rest(n) > 1:
        n += 2
    return n


def _rest(n: int) -> int:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n
