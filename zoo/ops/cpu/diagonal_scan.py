"""The diagonal recurrence as a compiled loop: a block of channels stays in L1 while time goes by.

Equations as in `chunked.py`. Complex numbers are pairs of real ones, beside each other as they lie in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.jit import inlined, loop
from zoo.ops.cpu.threads import run

CHANNELS = 256
"""Real numbers of a state that one call of a loop takes through time together."""


class CompiledScan(torch.autograd.Function):
    """`naive.scan` on tensors of a CPU, real or complex, of single or double precision.

    h_t = a_t h_{t−1} + b_t;    g_t = dh_t + ā_{t+1} g_{t+1},    db_t = g_t,    da_t = g_t h̄_{t−1},    dh_0 = ā_1 g_1
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h0: Tensor | None) -> Tensor:
        pairs = b.is_complex()
        flops.count("diagonal_scan", 2 * (4 if pairs else 1) * b.numel())
        h = b.new_empty(b.shape)
        start = b.new_zeros(b[:, 0].shape) if h0 is None else h0
        arrays = [_real(x) for x in (a, b, h, start[:, None])]
        _spread(_forward, arrays, pairs)
        ctx.save_for_backward(a, h, start)
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        a, h, start = ctx.saved_tensors
        pairs = h.is_complex()
        flops.count("diagonal_scan", 4 * (4 if pairs else 1) * h.numel())
        da, db, dh0 = torch.empty_like(h), torch.empty_like(h), start.new_empty(start.shape)
        arrays = [_real(x) for x in (a, h, start[:, None], dh, da, db, dh0[:, None])]
        _spread(_backward, arrays, pairs)
        return da, db, dh0 if ctx.needs_input_grad[2] else None


def _real(x: Tensor) -> Tensor:
    """(B, T, real numbers of a state), over the same memory where x is contiguous."""
    x = x.detach().resolve_conj().resolve_neg().contiguous()
    return (torch.view_as_real(x) if x.is_complex() else x).reshape(*x.shape[:2], -1)


def _spread(kernel: Any, arrays: list[Tensor], pairs: bool) -> None:
    B, _, C = arrays[0].shape
    run(kernel, B * -(-C // CHANNELS), pairs, *arrays)


@loop
def _forward(start, stop, pairs, a, b, h, h0):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1: item (i, block) takes the channels of a block through all steps of row i."""
    _, T, C = b.shape
    blocks = -(-C // CHANNELS)
    h_ = np.zeros(CHANNELS, b.dtype)
    for item in range(start, stop):
        i, first = item // blocks, item % blocks * CHANNELS
        last = min(first + CHANNELS, C)
        h_[: last - first] = h0[i, 0, first:last]
        for t in range(T):
            a_, b_ = a[i, t, first:last], b[i, t, first:last]
            if pairs:
                for c in range(len(a_) // 2):
                    re, im = h_[2 * c], h_[2 * c + 1]
                    h_[2 * c] = a_[2 * c] * re - a_[2 * c + 1] * im + b_[2 * c]
                    h_[2 * c + 1] = a_[2 * c] * im + a_[2 * c + 1] * re + b_[2 * c + 1]
            else:
                for c in range(len(a_)):
                    h_[c] = a_[c] * h_[c] + b_[c]
            h[i, t, first:last] = h_[: last - first]


@loop
def _backward(start, stop, pairs, a, h, h0, dh, da, db, dh0):  # type: ignore[no-untyped-def]
    _, T, C = h.shape
    blocks = -(-C // CHANNELS)
    carry, g, e = np.zeros(CHANNELS, h.dtype), np.zeros(CHANNELS, h.dtype), np.zeros(CHANNELS, h.dtype)
    for item in range(start, stop):
        i, first = item // blocks, item % blocks * CHANNELS
        last = min(first + CHANNELS, C)
        size = last - first
        carry[:] = 0  # ā_{t+1} g_{t+1}
        for t in range(T - 1, -1, -1):
            before = h[i, t - 1, first:last] if t else h0[i, 0, first:last]
            _step_backward(pairs, a[i, t, first:last], before, dh[i, t, first:last], carry, g, e)
            da[i, t, first:last], db[i, t, first:last] = e[:size], g[:size]
        dh0[i, 0, first:last] = carry[:size]


@inlined
def _step_backward(pairs, a, before, dh, carry, g, e):  # type: ignore[no-untyped-def]
    if pairs:
        for c in range(len(a) // 2):
            re, im = dh[2 * c] + carry[2 * c], dh[2 * c + 1] + carry[2 * c + 1]
            g[2 * c], g[2 * c + 1] = re, im
            e[2 * c] = re * before[2 * c] + im * before[2 * c + 1]
            e[2 * c + 1] = im * before[2 * c] - re * before[2 * c + 1]
            carry[2 * c] = re * a[2 * c] + im * a[2 * c + 1]
            carry[2 * c + 1] = im * a[2 * c] - re * a[2 * c + 1]
    else:
        for c in range(len(a)):
            g[c] = dh[c] + carry[c]
            e[c] = g[c] * before[c]
            carry[c] = g[c] * a[c]
