"""RMSNorm as one compiled loop over rows forward and one back, which need no more than what came in.

    y = w ⊙ n ⊙ act(gate),  n = r u,  r = 1 / √(mean u² + ε)

rms    u = o,  act = SiLU, σ or no gate
gated  u = o ⊙ SiLU(gate)

Backward, with dn = dy ⊙ act(gate) ⊙ w,

    du = r (dn − n mean(dn ⊙ n)),    dw = Σ dy ⊙ act(gate) ⊙ n,    dgate = dy ⊙ w ⊙ n ⊙ act'(gate)
    gated: do = du ⊙ SiLU(gate),     dgate = du ⊙ o ⊙ SiLU'(gate)
"""

from typing import Any

import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import Rows, as_matrix, number, rows
from zoo.ops.cpu.jit import copy, inlined, loop, rsqrt
from zoo.ops.cpu.matmul import aligned_zeros
from zoo.ops.cpu.simd import (
    broadcast,
    lanes,
    load,
    load_partial,
    prefetch,
    store,
    store_partial,
    sum_lanes,
    vec_sigmoid,
)
from zoo.ops.cpu.threads import once_differentiable, run
from zoo.ops.norms.naive import Activation
from zoo.ops.precision import promote

AHEAD = 2
"""Rows between one that is worked on and one that is fetched."""
GRAIN = 64
"""Rows that one thread takes at least, and that share a row of partial sums."""
PLAIN, SWISH, SIGMOID, GATED = range(4)
"""Where there is a gate: nowhere, behind the norm by either function, or before it."""


def rms(
    o: Tensor,
    weight: Tensor,
    eps: float,
    gate: Tensor | None = None,
    activation: Activation = "swish",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """See `zoo.ops.norms.naive.rms`."""
    mode = PLAIN if gate is None else SWISH if activation == "swish" else SIGMOID
    return _normalize(o, gate, weight, eps, mode, dtype or o.dtype)


def gated_rms(o: Tensor, weight: Tensor, eps: float, gate: Tensor) -> Tensor:
    """See `zoo.ops.norms.naive.gated_rms`. The gate is read where it lies, as a part of wider rows."""
    return _normalize(o, gate, weight, eps, GATED, o.dtype)


def _normalize(o: Tensor, gate: Tensor | None, weight: Tensor, eps: float, mode: int, dtype: torch.dtype) -> Tensor:
    wide = promote(o)
    written = dtype if dtype is torch.bfloat16 and wide is torch.float32 else wide
    y: Tensor = CompiledRMS.apply(o, gate, weight, eps, mode, written)
    return y.to(dtype)


class CompiledRMS(torch.autograd.Function):
    """The norm in `dtype`, of o and a gate (*N, V) or none."""

    @staticmethod
    def forward(
        ctx: Any, o: Tensor, gate: Tensor | None, weight: Tensor, eps: float, mode: int, dtype: torch.dtype
    ) -> Tensor:
        ctx.eps, ctx.mode = eps, mode
        y, w = torch.empty(o.shape, dtype=dtype), weight.detach().to(promote(o))
        x = as_matrix(o)
        run(_forward, len(x), mode, x, _rows(gate, o), as_matrix(y), w, number(eps, w.dtype), grain=GRAIN)
        ctx.save_for_backward(o, gate, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        o, gate, weight = ctx.saved_tensors
        N, w = o.shape[:-1].numel(), weight.detach().to(promote(o))
        do, dw = torch.empty(o.shape, dtype=o.dtype), w.new_zeros(-(-N // GRAIN), len(w))
        d_gate = None if gate is None else torch.empty(o.shape, dtype=gate.dtype)
        gradients = as_matrix(do), o.new_empty(0, 1) if d_gate is None else as_matrix(d_gate), dw
        inputs = as_matrix(o), _rows(gate, o), as_matrix(dy), w, number(ctx.eps, w.dtype)
        run(_backward, N, ctx.mode, *inputs, *gradients, grain=GRAIN)
        return do, d_gate, dw.sum(0).to(weight.dtype), None, None, None


def _rows(x: Tensor | None, like: Tensor) -> Rows:
    """Rows of x (*N, d) where they lie; none where there is no x."""
    return rows(like.new_empty(0, 0, 0, 0) if x is None else as_matrix(x.detach())[None, None])


@inlined
def _load_inputs(i, mode, x, gate, row, eps):  # type: ignore[no-untyped-def]
    """u of row i; returns r."""
    d, squares = x.shape[1], broadcast(row.dtype.type(0))
    for c in range(0, d, lanes(row)):
        z = load_partial(x, i * d + c, d - c)
        if mode == GATED:
            g = load_partial(gate.memory, i * gate.step + c, d - c)
            z = z * g * vec_sigmoid(g)
        squares = squares + z * z
        store(z, row, c)
    return broadcast(rsqrt(row.dtype.type(1 / d) * sum_lanes(squares) + eps))


@inlined
def _activation(g, mode, ones):  # type: ignore[no-untyped-def]
    """σ(g) or SiLU(g), and its slope."""
    act = vec_sigmoid(g)
    slope = act * (ones - act)
    if mode != SIGMOID:
        slope = act + g * slope
        act = act * g
    return act, slope


@inlined
def _prefetch_row(i, x, gate, y, dx, d_gate):  # type: ignore[no-untyped-def]
    d = x.shape[1]
    prefetch(x, i * d, d)
    prefetch(y, i * d, d)
    prefetch(dx, i * d, d)
    prefetch(gate.memory, i * gate.step, d)
    prefetch(d_gate, i * d, d)


@loop
def _forward(start, stop, mode, x, gate, y, w, eps):  # type: ignore[no-untyped-def]
    d, step, ones = x.shape[1], lanes(w), broadcast(w.dtype.type(1))
    row, w_ = aligned_zeros(-(-d // step) * step, w), aligned_zeros(-(-d // step) * step, w)
    copy(w, w_)
    for i in range(start, stop):
        _prefetch_row(i + AHEAD, x, gate, y, x[:0], x[:0])
        r = _load_inputs(i, mode, x, gate, row, eps)
        for c in range(0, d, step):
            z = r * load(row, c) * load(w_, c)
            if mode in (SWISH, SIGMOID):
                act, _ = _activation(load_partial(gate.memory, i * gate.step + c, d - c), mode, ones)
                z = z * act
            store_partial(z, y, i * d + c, d - c)


@loop
def _backward(start, stop, mode, x, gate, dy, w, eps, dx, d_gate, dw):  # type: ignore[no-untyped-def]
    d, step, ones = x.shape[1], lanes(w), broadcast(w.dtype.type(1))
    width = -(-d // step) * step
    row, dn = aligned_zeros(width, w), aligned_zeros(width, w)
    w_, sums = aligned_zeros(width, w), aligned_zeros(width, w)
    copy(w, w_)
    for i in range(start, stop):
        _prefetch_row(i + AHEAD, x, gate, dy, dx, d_gate)
        r, dots = _load_inputs(i, mode, x, gate, row, eps), broadcast(w.dtype.type(0))
        for c in range(0, d, step):
            at, size = i * d + c, d - c
            z, n = load_partial(dy, at, size), r * load(row, c)
            if mode in (SWISH, SIGMOID):
                g = load_partial(gate.memory, i * gate.step + c, size)
                act, slope = _activation(g, mode, ones)
                store_partial(z * n * load(w_, c) * slope, d_gate, at, size)
                z = z * act
            store(load(sums, c) + z * n, sums, c)
            z = z * load(w_, c)
            dots = dots + z * n
            store(n, row, c)
            store(z, dn, c)
        mean = broadcast(w.dtype.type(1 / d) * sum_lanes(dots))
        for c in range(0, d, step):
            at, size = i * d + c, d - c
            z = r * (load(dn, c) - mean * load(row, c))
            if mode == GATED:
                g = load_partial(gate.memory, i * gate.step + c, size)
                act, slope = _activation(g, mode, ones)
                store_partial(z * load_partial(x, at, size) * slope, d_gate, at, size)
                z = z * act
            store_partial(z, dx, at, size)
        if (i + 1) % GRAIN == 0 or i == stop - 1:
            copy(sums, dw[i // GRAIN])
            sums[:] = 0
