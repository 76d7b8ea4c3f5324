"""The diagonal recurrence in few large steps: all chunks advance together, then each takes up where the last one ended.

T is cut into n chunks of L steps. With P_j the product of a over the first j steps of a chunk and h° the recurrence run
from zero in every chunk at once, h_j = h°_j + P_j c where c is the state that enters the chunk: L + n steps in place of
T. Only products of a are formed, never quotients, so |a| ≤ 1 is safe down to a = 0.

The backward pass is the same recurrence run from the end (Martin & Cundy 2018, arXiv:1709.04057, section 2.2):

    g_t = dh_t + ā_{t+1} g_{t+1},    db_t = g_t,    da_t = g_t h̄_{t-1},    dh_0 = ā_1 g_1
"""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops import flops

WIDE = 1 << 14
"""Elements per step beyond which a step costs its arithmetic, not its launch; more chunks would only add work."""


def scan(a: Tensor, b: Tensor, h0: Tensor | None = None) -> Tensor:
    """As `naive.scan`, of a and b in one shape and dtype."""
    return _Scan.apply(a, b, h0)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h0: Tensor | None) -> Tensor:
        flops.count("diagonal_scan", 2 * _real_factor(b) * b.numel())
        h = _recur(a, b, h0)
        ctx.save_for_backward(a, h, h0)
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        a, h, h0 = ctx.saved_tensors
        flops.count("diagonal_scan", 4 * _real_factor(h) * h.numel())
        g = _recur(a[:, 1:].conj(), dh, None, reverse=True)
        before = torch.cat([torch.zeros_like(h[:, :1]) if h0 is None else h0[:, None], h[:, :-1]], dim=1)
        da = g * before.conj() if ctx.needs_input_grad[0] else None
        return da, g, g[:, 0] * a[:, 0].conj() if ctx.needs_input_grad[2] else None


def _real_factor(x: Tensor) -> int:
    return 4 if x.is_complex() else 1


def _recur(a: Tensor, b: Tensor, h0: Tensor | None, *, reverse: bool = False) -> Tensor:
    """h_t = a_t h_{t−1} + b_t; with `reverse`, h_t = a_t h_{t+1} + b_t, where the last a is unused and left out."""
    if b.is_meta:
        return torch.empty(b.shape, dtype=b.dtype, device=b.device)
    T, width = b.shape[1], b[:, 0].numel()
    n = max(1, min(round(math.sqrt(T)), WIDE // max(width, 1)))
    L = -(-T // n)
    n = -(-T // L)
    h, p = (_padded(x, n * L).unflatten(1, (n, L)) for x in (b, a))
    steps, chunks = list(range(L)), list(range(n))
    if reverse:
        steps, chunks = steps[::-1], chunks[::-1]
    if h0 is not None:
        h[:, chunks[0], steps[0]].addcmul_(p[:, chunks[0], steps[0]], h0)
    fades = not p.is_complex()
    smallest = torch.finfo(p.dtype).tiny / torch.finfo(p.dtype).eps
    for i, j in pairwise(steps):
        h[:, :, j].addcmul_(p[:, :, j], h[:, :, i])
        if n > 1:
            product = p[:, :, j].mul_(p[:, :, i])
            if fades:  # through the denormal numbers, which cost a CPU a hundred times the time
                torch.hardshrink(product, smallest, out=product)
    for i, j in pairwise(chunks):
        h[:, j].addcmul_(p[:, j], h[:, i, steps[-1], None])
    return h.flatten(1, 2)[:, :T]


def _padded(x: Tensor, T: int) -> Tensor:
    """A copy of x (B, ≤T, ...) with zeros after its end."""
    return F.pad(x, [0, 0] * (x.ndim - 2) + [0, T - x.shape[1]])
