"""`zoo.ops.norms` as compiled loops over rows; the backward passes need one number of a row.

unit      y = c r x,                    dx = r (c dy − y (y·dy) / c)
simplex   y = φ / s,                    dx = (dy − y·dy) / s ⊙ min(φ, 1)           (without y·dy where s is clamped)
rms       y = w ⊙ n ⊙ a,  n = r o,      do = r (dn − n mean(dn ⊙ n)),  dn = dy ⊙ a ⊙ w
layer     y = w ⊙ n + b,  n = r (o − mean o),  do = r (dn − mean dn − n mean(dn ⊙ n)),  dn = dy ⊙ w
summed    dx = dy = ds + do of the norm
gated_rms y = w ⊙ n,  n = r u,      du = r (dn − n mean(dn ⊙ n)),  dn = dy ⊙ w
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import memory, narrowed, widened
from zoo.ops.cpu.jit import exp, inlined, loop
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
from zoo.ops.norms.naive import SMALLEST_SQUARE, SMALLEST_SUM

AHEAD = 2
"""Rows between one that is worked on and one that is fetched."""
GRAIN = 64
"""Rows that one thread takes at least, and that share a row of partial sums."""


class CompiledUnit(torch.autograd.Function):
    """`unit` of x (*N, K), in `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
        y, r = torch.empty(x.shape, dtype=dtype), _numbers(x)
        _run(_unit, (x, y), r, _constants(r, scale, SMALLEST_SQUARE))
        ctx.save_for_backward(y, r)
        ctx.scale, ctx.dtype = scale, x.dtype
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        y, r = ctx.saved_tensors
        dx = torch.empty(y.shape, dtype=ctx.dtype)
        _run(_unit_backward, (y, dy, dx), r, _constants(r, ctx.scale, 1 / ctx.scale))
        return dx, None, None


class CompiledSimplex(torch.autograd.Function):
    """`simplex` of x (*N, K), in x's dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, s = torch.empty(x.shape, dtype=x.dtype), _numbers(x)
        _run(_simplex, (x, y), s, _constants(s, 0, 1, SMALLEST_SUM))
        ctx.save_for_backward(y, s)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        y, s = ctx.saved_tensors
        dx = torch.empty(y.shape, dtype=y.dtype)
        _run(_simplex_backward, (y, dy, dx), s, _constants(s, 0, 1, SMALLEST_SUM))
        return dx


class CompiledRMS(torch.autograd.Function):
    """`rms` of o (*N, V) with a gate of that shape, in `dtype`."""

    @staticmethod
    def forward(
        ctx: Any, o: Tensor, weight: Tensor, eps: float, gate: Tensor, swish: bool, dtype: torch.dtype
    ) -> Tensor:
        y, w = torch.empty(o.shape, dtype=dtype), weight.detach().to(_numbers(o).dtype)
        _run(_rms, (o, gate, y), w, _constants(w, 1, eps, 1 / len(w)), swish)
        ctx.save_for_backward(o, weight, gate)
        ctx.eps, ctx.swish = eps, swish
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        o, weight, gate = ctx.saved_tensors
        w = weight.detach().to(_numbers(o).dtype)
        do, dg = torch.empty(o.shape, dtype=o.dtype), torch.empty(gate.shape, dtype=gate.dtype)
        dw = torch.zeros(-(-_numbers(o).numel() // GRAIN), len(w), dtype=w.dtype)
        _run(_rms_backward, (o, gate, dy, do, dg), w, dw, _constants(w, 1, ctx.eps, 1 / len(w)), ctx.swish)
        return do, dw.sum(0).to(weight.dtype), None, dg, None, None


class CompiledGatedRMS(torch.autograd.Function):
    """`gated_rms` of o and a gate (*N, V), in o's dtype. The gate is read where it lies, as a part of wider rows."""

    @staticmethod
    def forward(ctx: Any, o: Tensor, weight: Tensor, eps: float, gate: Tensor) -> Tensor:
        y, w = torch.empty(o.shape, dtype=o.dtype), weight.detach().to(_numbers(o).dtype)
        _run(_gated, (o, y), *_lines(gate), w, _constants(w, 1, eps, 1 / len(w)))
        ctx.save_for_backward(o, weight, gate)
        ctx.eps = eps
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        o, weight, gate = ctx.saved_tensors
        w = weight.detach().to(_numbers(o).dtype)
        do, dg = torch.empty(o.shape, dtype=o.dtype), torch.empty(gate.shape, dtype=gate.dtype)
        dw = torch.zeros(-(-_numbers(o).numel() // GRAIN), len(w), dtype=w.dtype)
        _run(_gated_backward, (o, dy, do, dg), *_lines(gate), w, dw, _constants(w, 1, ctx.eps, 1 / len(w)))
        return do, dw.sum(0).to(weight.dtype), None, dg


class CompiledNorm(torch.autograd.Function):
    """`summed` of x and y (*N, V), or of x alone: the sum, and its norm in `dtype`, with a bias a LayerNorm."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)
        s = None if y is None else torch.empty(x.shape, dtype=torch.promote_types(x.dtype, y.dtype))
        n, room = torch.empty(x.shape, dtype=dtype), _numbers(x)
        w, b = weight.detach().to(room.dtype), _optional(None if bias is None else bias.to(room.dtype), room)
        _run(_norm, (x, n), _optional(y, x), _optional(s, x), w, b, _constants(w, 1, eps, 1 / len(w)))
        ctx.save_for_backward(x if s is None else s, weight)
        ctx.kinds, ctx.eps = (x.dtype, None if y is None else y.dtype, None if bias is None else bias.dtype), eps
        return s, n

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, ds: Tensor | None, dn: Tensor | None) -> tuple[Tensor | None, ...]:
        s, weight = ctx.saved_tensors
        x_kind, y_kind, b_kind = ctx.kinds
        dn = torch.zeros_like(s) if dn is None else dn
        w, dx = weight.detach().to(_numbers(s).dtype), torch.empty(s.shape, dtype=x_kind)
        dy = torch.empty(s.shape, dtype=y_kind) if y_kind not in (None, x_kind) else None
        dw, db = torch.zeros(2, -(-_numbers(s).numel() // GRAIN), len(w), dtype=w.dtype)
        extra = _optional(ds, s), _optional(dy, s)
        constants = _constants(w, 1, ctx.eps, 1 / len(w))
        _run(_norm_backward, (s, dn, dx), *extra, w, dw, db, constants, b_kind is not None)
        dbias = None if b_kind is None else db.sum(0).to(b_kind)
        return dx, dx if y_kind is x_kind else dy, dw.sum(0).to(weight.dtype), dbias, None, None


def _optional(x: Tensor | None, like: Tensor) -> Tensor:
    """x as rows; where there is none, no rows in the dtype of `like`."""
    return like.new_empty(0, 1) if x is None else x.detach().reshape(-1, x.shape[-1])


def _lines(x: Tensor) -> tuple[Any, int]:
    """Memory of rows (*N, d), and how far one is from the next."""
    x = x.detach().reshape(x.shape[:-1].numel(), -1)
    x = x if x.stride(1) == 1 else x.contiguous()
    return memory(x), x.stride(0)


def _numbers(x: Tensor) -> Tensor:
    """Room for a number of each row, in float32 at least."""
    return torch.empty(x.shape[:-1].numel(), dtype=torch.promote_types(x.dtype, torch.float32))


def _constants(like: Tensor, *numbers: float) -> Tensor:
    """Numbers in the dtype of `like`: as Python's they would make a loop compute in float64."""
    return torch.tensor(numbers, dtype=like.dtype)


def _run(work: Any, by_row: tuple[Tensor, ...], *rest: Any) -> None:
    """`work` on tensors (*N, d) as rows, and on the rest as it is."""
    arrays = [x.reshape(x.shape[:-1].numel(), x.shape[-1]).contiguous() for x in by_row]
    run(work, len(arrays[0]), *arrays, *(x.contiguous() if isinstance(x, Tensor) else x for x in rest), grain=GRAIN)


@loop
def _unit(start, stop, x, y, r, constants):  # type: ignore[no-untyped-def]
    d, scale, least = x.shape[1], constants[0], constants[1]
    row, out = np.empty(d, r.dtype), np.empty(d, y.dtype)
    for i in range(start, stop):
        x_, total = x[i], least
        for c in range(d):
            row[c] = widened(x_[c])
            total += row[c] * row[c]
        r[i] = 1 / np.sqrt(total)
        factor = scale * r[i]
        for c in range(d):
            out[c] = narrowed(factor * row[c], out)
        y[i] = out


@loop
def _unit_backward(start, stop, y, dy, dx, r, constants):  # type: ignore[no-untyped-def]
    d, scale, undo = y.shape[1], constants[0], constants[1]
    row, slope, out = np.empty(d, r.dtype), np.empty(d, r.dtype), np.empty(d, dx.dtype)
    for i in range(start, stop):
        y_, dy_, met = y[i], dy[i], r.dtype.type(0)
        for c in range(d):
            row[c], slope[c] = widened(y_[c]), widened(dy_[c])
            met += row[c] * slope[c]
        own, along = r[i] * scale, r[i] * met * undo
        for c in range(d):
            out[c] = narrowed(own * slope[c] - along * row[c], out)
        dx[i] = out


@loop
def _simplex(start, stop, x, y, s, constants):  # type: ignore[no-untyped-def]
    d, zero, one, least = x.shape[1], constants[0], constants[1], constants[2]
    row, out = np.empty(d, s.dtype), np.empty(d, y.dtype)
    for i in range(start, stop):
        x_, total = x[i], zero
        for c in range(d):
            z = widened(x_[c])
            row[c] = max(z, zero) + exp(min(z, zero))
            total += row[c]
        s[i] = total
        factor = one / max(total, least)
        for c in range(d):
            out[c] = narrowed(factor * row[c], out)
        y[i] = out


@loop
def _simplex_backward(start, stop, y, dy, dx, s, constants):  # type: ignore[no-untyped-def]
    d, zero, one, least = y.shape[1], constants[0], constants[1], constants[2]
    row, slope, out = np.empty(d, s.dtype), np.empty(d, s.dtype), np.empty(d, dx.dtype)
    for i in range(start, stop):
        y_, dy_, met = y[i], dy[i], zero
        for c in range(d):
            row[c], slope[c] = widened(y_[c]), widened(dy_[c])
            met += row[c] * slope[c]
        total = max(s[i], least)
        if s[i] < least:
            met = zero
        factor = one / total
        for c in range(d):
            out[c] = narrowed(factor * (slope[c] - met) * min(total * row[c], one), out)
        dx[i] = out


@inlined
def _read(x, first, d, zero, row):  # type: ignore[no-untyped-def]
    """d numbers of x as lines of `row`, and the sum of their squares."""
    squares = zero
    for c in range(0, d, lanes(row)):
        z = load_partial(x, first + c, d - c)
        squares = squares + z * z
        store(z, row, c)
    return sum_lanes(squares)


@loop
def _rms(start, stop, o, gate, y, w, constants, swish):  # type: ignore[no-untyped-def]
    d, one, eps, share = o.shape[1], constants[0], constants[1], constants[2]
    step, zero = lanes(w), broadcast(eps - eps)
    row, w_ = aligned_zeros(-(-d // step) * step, w), aligned_zeros(-(-d // step) * step, w)
    w_[:d] = w
    for i in range(start, stop):
        first, then = i * d, (i + AHEAD) * d
        prefetch(o, then, d)
        prefetch(gate, then, d)
        prefetch(y, then, d)
        r = broadcast(one / np.sqrt(share * _read(o, first, d, zero, row) + eps))
        for c in range(0, d, step):
            g = load_partial(gate, first + c, d - c)
            on = vec_sigmoid(g) * g if swish else vec_sigmoid(g)
            store_partial(r * load(row, c) * load(w_, c) * on, y, first + c, d - c)


@loop
def _rms_backward(start, stop, o, gate, dy, do, dg, w, dw, constants, swish):  # type: ignore[no-untyped-def]
    d, one, eps, share = o.shape[1], constants[0], constants[1], constants[2]
    step, zero, ones = lanes(w), broadcast(eps - eps), broadcast(one)
    across = -(-d // step) * step
    row, slope, w_, scales = (
        aligned_zeros(across, w),
        aligned_zeros(across, w),
        aligned_zeros(across, w),
        aligned_zeros(across, w),
    )
    w_[:d] = w
    for i in range(start, stop):
        first, then, met = i * d, (i + AHEAD) * d, zero
        prefetch(o, then, d)
        prefetch(gate, then, d)
        prefetch(dy, then, d)
        prefetch(do, then, d)
        prefetch(dg, then, d)
        r = broadcast(one / np.sqrt(share * _read(o, first, d, zero, row) + eps))
        for c in range(0, d, step):
            at, size = first + c, d - c
            g, z, normed = load_partial(gate, at, size), load_partial(dy, at, size), r * load(row, c)
            on = vec_sigmoid(g)
            change = on * (ones - on)
            if swish:
                change, on = on + g * change, on * g
            store_partial(z * normed * load(w_, c) * change, dg, at, size)
            z = z * on
            store(load(scales, c) + z * normed, scales, c)
            z = z * load(w_, c)
            met = met + z * normed
            store(normed, row, c)
            store(z, slope, c)
        along = broadcast(share * sum_lanes(met))
        for c in range(0, d, step):
            store_partial(r * (load(slope, c) - along * load(row, c)), do, first + c, d - c)
        if (i + 1) % GRAIN == 0 or i == stop - 1:
            dw[i // GRAIN] = scales[:d]
            scales[:] = 0


@loop
def _gated(start, stop, o, y, gate, far, w, constants):  # type: ignore[no-untyped-def]
    """Rows of the gate are `far` apart."""
    d, one, eps, share = o.shape[1], constants[0], constants[1], constants[2]
    step, zero = lanes(w), broadcast(eps - eps)
    row, w_ = aligned_zeros(-(-d // step) * step, w), aligned_zeros(-(-d // step) * step, w)
    w_[:d] = w
    for i in range(start, stop):
        first, then, squares = i * d, (i + AHEAD) * d, zero
        prefetch(o, then, d)
        prefetch(gate, (i + AHEAD) * far, d)
        prefetch(y, then, d)
        for c in range(0, d, step):
            g = load_partial(gate, i * far + c, d - c)
            z = load_partial(o, first + c, d - c) * g * vec_sigmoid(g)
            squares = squares + z * z
            store(z, row, c)
        r = broadcast(one / np.sqrt(share * sum_lanes(squares) + eps))
        for c in range(0, d, step):
            store_partial(r * load(row, c) * load(w_, c), y, first + c, d - c)


@loop
def _gated_backward(start, stop, o, dy, do, dg, gate, far, w, dw, constants):  # type: ignore[no-untyped-def]
    d, one, eps, share = o.shape[1], constants[0], constants[1], constants[2]
    step, zero, ones = lanes(w), broadcast(eps - eps), broadcast(one)
    across = -(-d // step) * step
    gates, row, slope, w_, scales = (
        aligned_zeros(across, w), aligned_zeros(across, w), aligned_zeros(across, w), aligned_zeros(across, w), aligned_zeros(across, w),
    )  # fmt: skip
    w_[:d] = w
    for i in range(start, stop):
        first, then, squares, met = i * d, (i + AHEAD) * d, zero, zero
        prefetch(o, then, d)
        prefetch(gate, (i + AHEAD) * far, d)
        prefetch(dy, then, d)
        prefetch(do, then, d)
        prefetch(dg, then, d)
        for c in range(0, d, step):
            g = load_partial(gate, i * far + c, d - c)
            on = vec_sigmoid(g)
            z = load_partial(o, first + c, d - c) * g * on
            squares = squares + z * z
            store(on, gates, c)
            store(z, row, c)
        r = broadcast(one / np.sqrt(share * sum_lanes(squares) + eps))
        for c in range(0, d, step):
            z, normed = load_partial(dy, first + c, d - c), r * load(row, c)
            store(load(scales, c) + z * normed, scales, c)
            z = z * load(w_, c)
            met = met + z * normed
            store(normed, row, c)
            store(z, slope, c)
        along = broadcast(share * sum_lanes(met))
        for c in range(0, d, step):
            at, size = first + c, d - c
            z, on = r * (load(slope, c) - along * load(row, c)), load(gates, c)
            g = load_partial(gate, i * far + c, size)
            store_partial(z * g * on, do, at, size)
            store_partial(z * load_partial(o, at, size) * on * (ones + g * (ones - on)), dg, at, size)
        if (i + 1) % GRAIN == 0 or i == stop - 1:
            dw[i // GRAIN] = scales[:d]
            scales[:] = 0


@inlined
def _less(row, mean, d):  # type: ignore[no-untyped-def]
    """The first d numbers of a row minus their mean, as lines; behind them stay zeros."""
    for c in range(0, d, lanes(row)):
        store_partial(load(row, c) - mean, row, c, d - c)


@inlined
def _squares(row):  # type: ignore[no-untyped-def]
    """Σ row², of whole lines."""
    sums = load(row, 0) - load(row, 0)
    for c in range(0, len(row), lanes(row)):
        sums = sums + load(row, c) * load(row, c)
    return sum_lanes(sums)


@loop
def _norm(start, stop, x, n, y, s, w, b, constants):  # type: ignore[no-untyped-def]
    d, one, eps, share = x.shape[1], constants[0], constants[1], constants[2]
    step, zero = lanes(w), broadcast(eps - eps)
    across = -(-d // step) * step
    row, w_, b_ = aligned_zeros(across, w), aligned_zeros(across, w), aligned_zeros(across, w)
    w_[:d] = w
    if len(b) > 0:
        b_[:d] = b[0]
    for i in range(start, stop):
        first, then, sums = i * d, (i + AHEAD) * d, zero
        prefetch(x, then, d)
        prefetch(n, then, d)
        if len(y) > 0:
            prefetch(y, then, d)
            prefetch(s, then, d)
            for c in range(0, d, step):
                at, size = first + c, d - c
                store_partial(load_partial(x, at, size) + load_partial(y, at, size), s, at, size)
                z = load_partial(s, at, size)
                sums = sums + z
                store(z, row, c)
        else:
            for c in range(0, d, step):
                z = load_partial(x, first + c, d - c)
                sums = sums + z
                store(z, row, c)
        if len(b) > 0:
            _less(row, broadcast(share * sum_lanes(sums)), d)
        r = broadcast(one / np.sqrt(share * _squares(row) + eps))
        for c in range(0, d, step):
            store_partial(r * load(row, c) * load(w_, c) + load(b_, c), n, first + c, d - c)


@loop
def _norm_backward(start, stop, s, dn, dx, ds, dy, w, dw, db, constants, centred):  # type: ignore[no-untyped-def]
    d, one, eps, share = s.shape[1], constants[0], constants[1], constants[2]
    step, zero = lanes(w), broadcast(eps - eps)
    across = -(-d // step) * step
    row, slope, w_ = aligned_zeros(across, w), aligned_zeros(across, w), aligned_zeros(across, w)
    scales, shifts = aligned_zeros(across, w), aligned_zeros(across, w)
    w_[:d] = w
    for i in range(start, stop):
        first, then, sums = i * d, (i + AHEAD) * d, zero
        prefetch(s, then, d)
        prefetch(dn, then, d)
        prefetch(dx, then, d)
        if len(ds) > 0:
            prefetch(ds, then, d)
        if len(dy) > 0:
            prefetch(dy, then, d)
        for c in range(0, d, step):
            z = load_partial(s, first + c, d - c)
            sums = sums + z
            store(z, row, c)
        if centred:
            _less(row, broadcast(share * sum_lanes(sums)), d)
        r = broadcast(one / np.sqrt(share * _squares(row) + eps))
        met, mean = zero, zero
        for c in range(0, d, step):
            z, normed = load_partial(dn, first + c, d - c), r * load(row, c)
            store(load(scales, c) + z * normed, scales, c)
            store(load(shifts, c) + z, shifts, c)
            z = z * load(w_, c)
            met, mean = met + z * normed, mean + z
            store(normed, row, c)
            store(z, slope, c)
        along, off = broadcast(share * sum_lanes(met)), broadcast(share * sum_lanes(mean)) if centred else zero
        for c in range(0, d, step):
            at, size = first + c, d - c
            z = r * (load(slope, c) - off - along * load(row, c))
            if len(ds) > 0:
                z = z + load_partial(ds, at, size)
            store_partial(z, dx, at, size)
            if len(dy) > 0:
                store_partial(z, dy, at, size)
        if (i + 1) % GRAIN == 0 or i == stop - 1:
            dw[i // GRAIN], db[i // GRAIN] = scales[:d], shifts[:d]
            scales[:], shifts[:] = 0, 0
