"""The causal convolution by FFT, zero-padded to at least 2T − 1 so that nothing wraps around.

y = irfft(rfft(u) rfft(K)),    du = irfft(rfft(dy) conj rfft(K)),    dK = irfft(Σ_b rfft(dy) conj rfft(u))
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from zoo.ops import flops, forms
from zoo.ops.kernel_log import log_kernel
from zoo.ops.precision import promote


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
    if forms.worth_fusing(u, K):
        from zoo.ops.cpu.long_convolution import CompiledConvolve  # loads numba

        log_kernel("long_convolution", "fft, compiled loops")
        dtype = promote(u, K)
        return CompiledConvolve.apply(u, K.to(dtype), torch.as_tensor(skip, dtype=dtype).expand(len(K)))
    log_kernel("long_convolution", "fft")
    return _Convolve.apply(u, skipping(K, skip))


def skipping(K: Float[Tensor, "*B T"], skip: Float[Tensor, "*B"] | float) -> Float[Tensor, "*B T"]:
    """The kernel of K ∗ u + skip ⊙ u."""
    return torch.cat([(K[..., 0] + skip)[..., None], K[..., 1:]], dim=-1)


def work(B: int, T: int, D: int) -> int:
    """FLOPs of one direction."""
    return (2 * B + 1) * D * flops.rfft(fast_length(2 * T - 1))


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, K: Tensor) -> Tensor:
        B, T, D = u.shape
        n, dtype = fast_length(2 * T - 1), promote(u, K)
        flops.count("long_convolution", work(B, T, D))
        U, F = _transform(u, n, dtype), torch.fft.rfft(K.to(dtype), n=n)
        ctx.save_for_backward(U, F)
        ctx.sizes, ctx.dtypes = (T, n), (u.dtype, K.dtype)
        return _back(U * F, n, T, u.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        U, F = ctx.saved_tensors
        (T, n), (u_dtype, K_dtype) = ctx.sizes, ctx.dtypes
        flops.count("long_convolution", work(len(U), T, len(F)))
        G = _transform(dy, n, F.real.dtype)
        du = dK = None
        if ctx.needs_input_grad[1]:
            dF = sum(g * x.conj() for g, x in zip(G, U, strict=True))
            dK = torch.fft.irfft(dF, n=n)[:, :T].to(K_dtype)
        if ctx.needs_input_grad[0]:
            du = _back(G.mul_(F.conj()), n, T, u_dtype)
        return du, dK


def _transform(x: Float[Tensor, "B T D"], n: int, dtype: torch.dtype) -> Complex[Tensor, "B D F"]:
    """The transform along time of x with zeros behind it, n steps in all."""
    B, T, D = x.shape
    line = x.new_empty(B, D, n, dtype=dtype)
    line[..., T:] = 0
    line[..., :T] = x.transpose(1, 2)
    return torch.fft.rfft(line)


def _back(y: Complex[Tensor, "B D F"], n: int, T: int, dtype: torch.dtype) -> Float[Tensor, "B T D"]:
    """The first T of the n steps whose transform is y."""
    x = y.real.new_empty(len(y), T, y.shape[1], dtype=dtype)
    return x.copy_(torch.fft.irfft(y, n=n)[..., :T].transpose(1, 2))


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
