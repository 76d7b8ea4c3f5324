"""The diagonal recurrence in few large steps: all chunks advance together, then their carries run through.

T is cut into n chunks of L steps. With P_j the product of a over the first j steps of a chunk and h° the recurrence run
from zero in every chunk at once, h_j = h°_j + P_j c where c is the state that enters the chunk: L + n steps in place of
T. Only products of a are formed, never quotients, so |a| ≤ 1 is safe down to a = 0.

The backward pass is the same recurrence run from the end (Martin & Cundy 2018, arXiv:1709.04057, section 2.2):

    g_t = dh_t + ā_{t+1} g_{t+1},    db_t = g_t,    da_t = g_t h̄_{t-1},    dh_0 = ā_1 g_1
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from zoo.ops import flops, forms
from zoo.ops.kernel_log import log_kernel

WIDE = 1 << 14
"""Elements per step beyond which a step costs its arithmetic, not its launch; more chunks would only add work."""


def scan(a: Tensor, b: Tensor, h0: Tensor | None = None) -> Tensor:
    """See `naive.scan`. `a` and `b` must have one shape and dtype. On a CPU with numba it is the loop of `compiled.py`.

    Counts 2 FLOPs per element forward and 4 backward, four times that if complex.

    Raises:
        ValueError: shapes or dtypes differ.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"scan: a is {tuple(a.shape)} {a.dtype}, b is {tuple(b.shape)} {b.dtype}; make them equal")
    if h0 is not None and (h0.shape != b[:, 0].shape or h0.dtype != b.dtype):
        raise ValueError(f"scan: h0 is {tuple(h0.shape)} {h0.dtype}, expected {tuple(b[:, 0].shape)} {b.dtype}")
    if forms.supports(*(x.real if x is not None and x.is_complex() else x for x in (a, b, h0))):
        from zoo.ops.cpu.diagonal_scan import CompiledScan  # loads numba

        log_kernel("diagonal_scan", "compiled loop")
        return CompiledScan.apply(a, b, h0)
    log_kernel("diagonal_scan", "chunked")
    return _Scan.apply(a, b, h0)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h0: Tensor | None) -> Tensor:
        flops.count("diagonal_scan", 2 * _real_factor(b) * b.numel())
        h = recur(a, b, h0)
        ctx.save_for_backward(a, h, h0)
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        a, h, h0 = ctx.saved_tensors
        flops.count("diagonal_scan", 4 * _real_factor(h) * h.numel())
        g = recur(a[:, 1:].conj(), dh, None, reverse=True)
        da = dh0 = None
        if ctx.needs_input_grad[0]:
            da = torch.empty_like(g)
            torch.mul(g[:, 1:], h[:, :-1].conj(), out=da[:, 1:])
            da[:, 0] = 0 if h0 is None else g[:, 0] * h0.conj()
        if ctx.needs_input_grad[2]:
            dh0 = g[:, 0] * a[:, 0].conj()
        return da, g, dh0


def _real_factor(x: Tensor) -> int:
    return 4 if x.is_complex() else 1


def recur(a: Tensor, b: Tensor, h0: Tensor | None, *, reverse: bool = False) -> Tensor:
    """h_t = a_t h_{t-1} + b_t; with `reverse`, h_t = a_t h_{t+1} + b_t, where the last a is unused and left out.

    No gradient, no count: for ops with a backward pass of their own. Here `a` may have axes of size 1 after axis 1.
    """
    if b.is_meta:
        return torch.empty(b.shape, dtype=b.dtype, device=b.device)
    T, width = b.shape[1], b[:, 0].numel()
    n = max(1, min(round(math.sqrt(T)), WIDE // max(width, 1)))
    L = -(-T // n)
    n = -(-T // L)
    h = _padded(b, n * L)
    H, P = (x.unflatten(1, (n, L)) for x in (h, _padded(a, n * L)))
    steps, chunks = list(range(L)), list(range(n))
    if reverse:
        steps.reverse()
        chunks.reverse()
    first, last = steps[0], steps[-1]
    if n == 1:
        if h0 is not None:
            H[:, 0, first].addcmul_(P[:, 0, first], h0)
        for i, j in pairwise(steps):
            H[:, 0, j].addcmul_(P[:, 0, j], H[:, 0, i])
        return h
    _in_chunks(P.unbind(2), H.unbind(2), steps)
    carry = torch.zeros_like(H[:, :, first])
    c = carry.unbind(1)
    if h0 is not None:
        c[chunks[0]].copy_(h0)
    for i, j in pairwise(chunks):
        torch.addcmul(H[:, i, last], P[:, i, last], c[i], out=c[j])
    H.addcmul_(P, carry[:, :, None])
    return h[:, :T]


def _in_chunks(p: tuple[Tensor, ...], h: tuple[Tensor, ...], steps: list[int]) -> None:
    """Turn h from b into h° and p from a into P, step by step in all chunks at once."""
    info = torch.finfo(p[0].dtype)
    for i, j in pairwise(steps):
        h[j].addcmul_(p[j], h[i])
        p[j].mul_(p[i])
        if not p[j].is_complex():
            # A product that fades passes through the denormal numbers, which cost a CPU a hundred times the time.
            torch.hardshrink(p[j], info.tiny / info.eps, out=p[j])


def _padded(x: Tensor, T: int) -> Tensor:
    """A contiguous copy of x (B, ≤T, ...), zeros after its end."""
    out = torch.empty(x.shape[0], T, *x.shape[2:], dtype=x.dtype, device=x.device)
    out[:, : x.shape[1]] = x
    out[:, x.shape[1] :] = 0
    return out
