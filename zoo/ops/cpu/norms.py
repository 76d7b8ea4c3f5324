"""`zoo.ops.norms` as one compiled loop over rows forward and one back, which need no more than what came in.

    y = w ⊙ n ⊙ act(gate),  n = r u,  r = 1 / √(mean u² + ε)

rms    u = o,  act = SiLU, σ or no gate
summed u = s = x + y
gated  u = o ⊙ SiLU(gate)

Backward, with dn = dy ⊙ act(gate) ⊙ w,

    du = r (dn − n mean(dn ⊙ n)),    dw = Σ dy ⊙ act(gate) ⊙ n,    dgate = dy ⊙ w ⊙ n ⊙ act'(gate)
    summed: dx = dy = ds + du        gated: do = du ⊙ SiLU(gate),  dgate = du ⊙ o ⊙ SiLU'(gate)
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
from zoo.ops.cpu.threads import run
from zoo.ops.norms.naive import Activation
from zoo.ops.precision import promote

AHEAD = 2
"""Rows between one that is worked on and one that is fetched."""
GRAIN = 64
"""Rows that one thread takes at least, and that share a row of partial sums."""
PLAIN, SWISH, SIGMOID, GATED, SUMMED = range(5)
"""What becomes of the second input: nothing, a gate behind the norm by either function, before it, or a summand."""


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
    return _normalize(o, gate, weight, eps, mode, dtype or o.dtype)[1]


def gated_rms(o: Tensor, weight: Tensor, eps: float, gate: Tensor) -> Tensor:
    """See `zoo.ops.norms.naive.gated_rms`. The gate is read where it lies, as a part of wider rows."""
    return _normalize(o, gate, weight, eps, GATED, o.dtype)[1]


def summed(x: Tensor, y: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """See `zoo.ops.norms.naive.summed`."""
    x, y = torch.broadcast_tensors(x, y)
    return _normalize(x, y, weight, eps, SUMMED, dtype or torch.promote_types(x.dtype, y.dtype))


def _normalize(
    o: Tensor, extra: Tensor | None, weight: Tensor, eps: float, mode: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The sum, if any, and the norm in `dtype`."""
    wide = promote(o)
    written = dtype if dtype is torch.bfloat16 and wide is torch.float32 else wide
    s, y = CompiledRMS.apply(o, extra, weight, eps, mode, written)
    return s, y.to(dtype)


class CompiledRMS(torch.autograd.Function):
    """The sum, where there is one, and the norm in `dtype`, of o and another input (*N, V) or none."""

    @staticmethod
    def forward(
        ctx: Any, o: Tensor, extra: Tensor | None, weight: Tensor, eps: float, mode: int, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.eps, ctx.mode, ctx.kinds = eps, mode, (o.dtype, None if extra is None else extra.dtype)
        y, w = torch.empty(o.shape, dtype=dtype), weight.detach().to(promote(o))
        s = torch.empty(o.shape, dtype=torch.promote_types(*ctx.kinds)) if mode == SUMMED else None
        tensors = as_matrix(o), _rows(extra, o), _optional(s, o), as_matrix(y)
        run(_forward, len(tensors[0]), mode, *tensors, w, _Constants.of(w, eps), grain=GRAIN)
        ctx.save_for_backward(o if s is None else s, extra if s is None else None, weight)
        return s, y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, ds: Tensor | None, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        o, gate, weight = ctx.saved_tensors
        (kind, extra_kind), N = ctx.kinds, o.shape[:-1].numel()
        do, w = torch.empty(o.shape, dtype=kind), weight.detach().to(promote(o))
        shared = ctx.mode == SUMMED and kind is extra_kind
        d_extra = None if shared or extra_kind is None else torch.empty(o.shape, dtype=extra_kind)
        dy, dw = torch.zeros_like(o) if dy is None else dy, w.new_zeros(-(-N // GRAIN), len(w))
        inputs = as_matrix(o), _rows(gate, o), _optional(ds, o), as_matrix(dy)
        outputs = as_matrix(do), _optional(d_extra, o)
        run(_backward, N, ctx.mode, *inputs, *outputs, w, dw, _Constants.of(w, ctx.eps), grain=GRAIN)
        return do, do if shared else d_extra, dw.sum(0).to(weight.dtype), None, None, None


class _Constants(NamedTuple):
    """Numbers in the dtype that loops compute in."""

    one: Any
    eps: Any
    share: Any
    """Of one element in a mean over the row."""

    @classmethod
    def of(cls, w: Tensor, eps: float) -> _Constants:
        return cls(number(1, w.dtype), number(eps, w.dtype), number(1 / len(w), w.dtype))


def _rows(x: Tensor | None, like: Tensor) -> Rows:
    """Rows of x (*N, d) where they lie; none where there is no x."""
    if x is None:
        return Rows(like.new_empty(0), 0, 0, 0)
    x = as_matrix(x.detach())
    return rows((x if x.stride(1) == 1 else x.contiguous())[None, None])


def _optional(x: Tensor | None, like: Tensor) -> Tensor:
    """x as a matrix; where there is none, one without rows."""
    return like.new_empty(0, 1) if x is None else as_matrix(x)


@inlined
def _load_inputs(i, mode, x, extra, row):  # type: ignore[no-untyped-def]
    """u of row i; of a sum, x is s."""
    d = x.shape[1]
    for c in range(0, d, lanes(row)):
        z = load_partial(x, i * d + c, d - c)
        if mode == GATED:
            g = load_partial(extra.memory, i * extra.step + c, d - c)
            z = z * g * vec_sigmoid(g)
        store(z, row, c)


@inlined
def _add_inputs(i, x, extra, s, row):  # type: ignore[no-untyped-def]
    """s of row i, rounded to its dtype, there and in `row`."""
    d = x.shape[1]
    for c in range(0, d, lanes(row)):
        at, size = i * d + c, d - c
        store_partial(load_partial(x, at, size) + load_partial(extra.memory, i * extra.step + c, size), s, at, size)
        store(load_partial(s, at, size), row, c)


@inlined
def _inverse_rms(row, constants):  # type: ignore[no-untyped-def]
    squares = broadcast(constants.one - constants.one)
    for c in range(0, len(row), lanes(row)):
        squares = squares + load(row, c) * load(row, c)
    return broadcast(rsqrt(constants.share * sum_lanes(squares) + constants.eps))


@inlined
def _activation(g, mode, one):  # type: ignore[no-untyped-def]
    """σ(g) or SiLU(g), and its slope."""
    act = vec_sigmoid(g)
    slope = act * (broadcast(one) - act)
    if mode != SIGMOID:
        slope = act + g * slope
        act = act * g
    return act, slope


@loop
def _forward(start, stop, mode, x, extra, s, y, w, constants):  # type: ignore[no-untyped-def]
    d, step = x.shape[1], lanes(w)
    row, w_ = aligned_zeros(-(-d // step) * step, w), aligned_zeros(-(-d // step) * step, w)
    copy(w, w_)
    for i in range(start, stop):
        prefetch(x, (i + AHEAD) * d, d)
        prefetch(y, (i + AHEAD) * d, d)
        prefetch(extra.memory, (i + AHEAD) * extra.step, d)
        prefetch(s, (i + AHEAD) * d, d)
        if mode == SUMMED:
            _add_inputs(i, x, extra, s, row)
        else:
            _load_inputs(i, mode, x, extra, row)
        r = _inverse_rms(row, constants)
        for c in range(0, d, step):
            z = r * load(row, c) * load(w_, c)
            if mode in (SWISH, SIGMOID):
                act, _ = _activation(load_partial(extra.memory, i * extra.step + c, d - c), mode, constants.one)
                z = z * act
            store_partial(z, y, i * d + c, d - c)


@loop
def _backward(start, stop, mode, x, extra, ds, dy, dx, d_extra, w, dw, constants):  # type: ignore[no-untyped-def]
    d, step = x.shape[1], lanes(w)
    width = -(-d // step) * step
    row, dn = aligned_zeros(width, w), aligned_zeros(width, w)
    w_, sums = aligned_zeros(width, w), aligned_zeros(width, w)
    copy(w, w_)
    for i in range(start, stop):
        _fetch_row(i + AHEAD, x, extra, ds, dy, dx, d_extra)
        _load_inputs(i, mode, x, extra, row)
        r, dots = _inverse_rms(row, constants), broadcast(constants.one - constants.one)
        for c in range(0, d, step):
            at, size = i * d + c, d - c
            z, n = load_partial(dy, at, size), r * load(row, c)
            if mode in (SWISH, SIGMOID):
                g = load_partial(extra.memory, i * extra.step + c, size)
                act, slope = _activation(g, mode, constants.one)
                store_partial(z * n * load(w_, c) * slope, d_extra, at, size)
                z = z * act
            store(load(sums, c) + z * n, sums, c)
            z = z * load(w_, c)
            dots = dots + z * n
            store(n, row, c)
            store(z, dn, c)
        mean = broadcast(constants.share * sum_lanes(dots))
        for c in range(0, d, step):
            at, size = i * d + c, d - c
            z = r * (load(dn, c) - mean * load(row, c))
            if len(ds) > 0:
                z = z + load_partial(ds, at, size)
            if mode == SUMMED and len(d_extra) > 0:
                store_partial(z, d_extra, at, size)
            if mode == GATED:
                g = load_partial(extra.memory, i * extra.step + c, size)
                act, slope = _activation(g, mode, constants.one)
                store_partial(z * load_partial(x, at, size) * slope, d_extra, at, size)
                z = z * act
            store_partial(z, dx, at, size)
        if (i + 1) % GRAIN == 0 or i == stop - 1:
            copy(sums, dw[i // GRAIN])
            sums[:] = 0


@inlined
def _fetch_row(i, x, extra, ds, dy, dx, d_extra):  # type: ignore[no-untyped-def]
    d = x.shape[1]
    prefetch(x, i * d, d)
    prefetch(dy, i * d, d)
    prefetch(dx, i * d, d)
    prefetch(extra.memory, i * extra.step, d)
    prefetch(ds, i * d, d)
    prefetch(d_extra, i * d, d)
