"""The selective scan by its authors' CUDA kernel, `selective_scan_fn` (state-spaces/mamba,
mamba_ssm/ops/selective_scan_interface.py), in its package mamba-ssm."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops import official, precision
from zoo.ops.selective_scan import naive
from zoo.ops.selective_scan.chunked import selective_scan as chunked_scan


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """As `naive.selective_scan`, or None where the kernel may not be used: it cannot continue from a state."""
    if state is not None:
        return None
    return official.compute(KERNEL, precision.common_dtype(u, delta, B, C), (A.shape[1],), u, delta, A, B, C, D)


def _run(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None) -> tuple[Tensor, Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    dtype = precision.common_dtype(u, delta, B, C)  # of all that vary with time; the kernel computes in float32
    u_, delta_, B_, C_ = (x.to(dtype).mT.contiguous() for x in (u, delta, B, C))  # (B, ·, T)
    A, D = A.float().contiguous(), None if D is None else D.float()
    y, h = selective_scan_fn(u_, delta_, A, B_, C_, D, return_last_state=True)
    return y.mT.to(u.dtype), LastState.apply(h.detach(), u_, delta_, A, B_, C_)


class LastState(torch.autograd.Function):
    """h_T, through which the official kernel passes no gradient back: it is computed by our own form, if asked for.

    From u and Δ (B, D, T), A (D, N), B and C (B, N, T), and h_T itself, which is handed on.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        ctx.save_for_backward(u, delta, A, B, C)
        return h.clone(memory_format=torch.contiguous_format)  # `h` is a view of states that need not be kept

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C = (x.to(dh.dtype) for x in ctx.saved_tensors)
        with torch.enable_grad():
            u, delta, A, B = leaves = [x.detach().requires_grad_() for x in (u.mT, delta.mT, A, B.mT)]
            _, h = chunked_scan(u, delta, A, B, C.mT, None, torch.zeros_like(dh))
            du, d_delta, dA, dB = torch.autograd.grad(h, leaves, dh)
        return None, du.mT, d_delta.mT, dA, dB.mT, None


def _draw(random: torch.Generator, T: int, N: int, width: int = 6) -> list[Tensor]:
    """u, Δ (from almost 0 to several), A (slow and fast), B, C and D."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    delta, A = F.softplus(2 * normal(2, T, width) - 2), -(2 * normal(width, N) - 2).exp()
    return [normal(2, T, width), delta, A, normal(2, T, N), normal(2, T, N), normal(width)]


KERNEL = official.Official(
    "selective_scan",
    "mamba_ssm selective_scan_fn",
    package="mamba_ssm",
    install="MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm, with nvcc (docs/speed.md)",
    run=_run,
    naive=naive.selective_scan,
    draw=_draw,
    sizes=(16,),
    lengths=(72, 2100),  # it cuts rows into blocks of 2048 steps
)
KERNELS = (KERNEL,)
