"""`zoo.ops.qkv` as compiled loops over steps: what is turned one way forward is turned the other way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import narrowed, widened
from zoo.ops.cpu.jit import inlined, loop
from zoo.ops.cpu.threads import run
from zoo.ops.precision import promote
from zoo.ops.qkv.naive import Turn

GRAIN = 16
"""Steps that one thread takes at least."""


class CompiledSplit(torch.autograd.Function):
    """`naive.split`; q, k and v are contiguous."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, heads: int, kv_heads: int, q_turn: Turn | None, k_turn: Turn | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, T, d = *x.shape[:2], x.shape[2] // (heads + 2 * kv_heads)
        q, k, v = (x.new_empty(B, count, T, d) for count in (heads, kv_heads, kv_heads))
        turns = *_turn(q_turn, x), *_turn(k_turn, x)
        run(_split, B * T, x.reshape(B * T, -1, d), q, k, v, *turns, grain=GRAIN)
        ctx.turns, ctx.shape = turns, x.shape
        return q, k, v

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
        dx = dq.new_empty(ctx.shape)
        features = dx.view(-1, dx.shape[2] // dq.shape[3], dq.shape[3])
        run(_merge, len(features), features, dq, dk, dv, *ctx.turns, grain=GRAIN)
        return dx, None, None, None, None


def _turn(by: Turn | None, x: Tensor) -> tuple[Any, Any, bool]:
    dtype = promote(x)
    if by is None:
        nothing = x.new_empty(0, 0, 0, dtype=dtype)
        return nothing, nothing, False
    return by.cos.to(dtype), by.sin.to(dtype), by.convention == "interleaved"


@loop
def _split(start, stop, x, q, k, v, q_cos, q_sin, q_woven, k_cos, k_sin, k_woven):  # type: ignore[no-untyped-def]
    _, H, T, _ = q.shape
    G = k.shape[1]
    for i in range(start, stop):
        b, t = i // T, i % T
        for h in range(H):
            _turned(x[i, h], q[b, h, t], q_cos, q_sin, q_woven, b, t, 1)
        for g in range(G):
            _turned(x[i, H + g], k[b, g, t], k_cos, k_sin, k_woven, b, t, 1)
            _copy(x[i, H + G + g], v[b, g, t])


@loop
def _merge(start, stop, x, q, k, v, q_cos, q_sin, q_woven, k_cos, k_sin, k_woven):  # type: ignore[no-untyped-def]
    _, H, T, _ = q.shape
    G = k.shape[1]
    for i in range(start, stop):
        b, t = i // T, i % T
        for h in range(H):
            _turned(q[b, h, t], x[i, h], q_cos, q_sin, q_woven, b, t, -1)
        for g in range(G):
            _turned(k[b, g, t], x[i, H + g], k_cos, k_sin, k_woven, b, t, -1)
            _copy(v[b, g, t], x[i, H + G + g])


@inlined
def _copy(x, y):  # type: ignore[no-untyped-def]
    for c in range(len(x)):
        y[c] = x[c]


@inlined
def _turned(x, y, cos, sin, woven, b, t, way):  # type: ignore[no-untyped-def]
    """x turned at step t into y, forwards (`way` 1) or back (−1); as it is where there are no angles."""
    pairs = cos.shape[2]
    if pairs == 0:
        _copy(x, y)
    else:
        out = np.empty(len(x), x.dtype)
        row = min(b, len(cos) - 1)
        c_, s_ = cos[row, t], sin[row, t]
        sign = s_.dtype.type(way)
        for c in range(2 * pairs, len(x)):
            out[c] = x[c]
        if woven:
            for i in range(pairs):
                one, two = widened(x[2 * i]), widened(x[2 * i + 1])
                out[2 * i] = narrowed(one * c_[i] - sign * two * s_[i], out)
                out[2 * i + 1] = narrowed(two * c_[i] + sign * one * s_[i], out)
        else:
            for i in range(pairs):
                out[i] = narrowed(widened(x[i]) * c_[i] - sign * widened(x[pairs + i]) * s_[i], out)
            for i in range(pairs):
                out[pairs + i] = narrowed(widened(x[pairs + i]) * c_[i] + sign * widened(x[i]) * s_[i], out)
        _copy(out, y)
