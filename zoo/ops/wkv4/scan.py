"""WKV through the diagonal scan: find every exponent o_t first, then p and q are linear recurrences.

    o_t = max(o_{t−1} + w, k_t),    a_t = e^{o_{t−1} + w − o_t},    [p, q]_t = a_t [p, q]_{t−1} + e^{k_t − o_t} [v_t, 1]

o is a max-plus scan, done by doubling in log2 T passes. It cancels out of wkv, so no gradient runs through it. The
backward pass is written out below: autograd's own takes twice the time, all of it in elementwise steps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops import flops, forms
from zoo.ops.diagonal_scan.chunked import recur
from zoo.ops.kernel_log import log_kernel
from zoo.ops.precision import no_autocast
from zoo.ops.wkv4.naive import LOWEST, init_state
from zoo.types import State

FADED = -60.0
"""Below e^−60 a decay is zero: the larger of decay and input is 1, so what it drops is out of reach of float64."""


def wkv(
    w: Float[Tensor, " C"],
    u: Float[Tensor, " C"],
    k: Float[Tensor, "B T C"],
    v: Float[Tensor, "B T C"],
    state: State | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T C"], State]:
    """See `naive.wkv`. Computes in float32 at least, autocast or not; y has v's dtype, the state stays wide.

    On a CPU with numba it is the loop of `compiled.py` instead. Either counts its two recurrences: 4 FLOPs per element
    of k forward and 8 backward.
    """
    dtype, width = v.dtype, torch.promote_types(k.dtype, torch.float32)
    with no_autocast(k.device):
        before = init_state(k.shape[0], k.shape[2], device=k.device, dtype=width) if state is None else state
        inputs = [x.to(width) for x in (w, u, k, v, *(before[name] for name in "pqo"))]
        y, p, q, o = _form(inputs).apply(*inputs, mask)
    return y.to(dtype), {"p": p, "q": q, "o": o}


def _form(inputs: list[Tensor]) -> type[torch.autograd.Function]:
    if forms.supports(*inputs):
        from zoo.ops.cpu.wkv4 import CompiledWKV  # loads numba

        log_kernel("wkv4", "compiled loop")
        return CompiledWKV
    log_kernel("wkv4", "chunked scan")
    return _WKV


class _WKV(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, w: Tensor, u: Tensor, k: Tensor, v: Tensor, p0: Tensor, q0: Tensor, o0: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        flops.count("wkv4", 4 * k.numel())
        o = exponents(w, k, o0, mask)
        past, o = o[:, :-1], o[:, 1:]
        if mask is None:
            a, b, bv = past - o + w, torch.exp(k - o), v
        else:
            skip = ~mask[..., None]
            a = past - o + w * mask[..., None]
            # Filled twice: e^k must not overflow before it is thrown away, and in an empty row o is LOWEST as well.
            b = torch.exp(k.masked_fill(skip, LOWEST) - o).masked_fill(skip, 0)
            bv = v.masked_fill(skip, 0)
        a = F.threshold(a, FADED, float("-inf")).exp()
        h0 = torch.stack([p0, q0], dim=1)
        h = recur(a[:, :, None], torch.stack([b * bv, b], dim=2), h0)
        before = torch.cat([h0[:, None], h[:, :-1]], dim=1)  # (B, T, 2, C)
        bonus = u + k
        n = torch.maximum(past, bonus)
        old, new = torch.exp(past - n), torch.exp(bonus - n)
        q = torch.addcmul(new, old, before[:, :, 1])
        y = torch.addcmul(new * v, old, before[:, :, 0]) / q
        ctx.save_for_backward(a, b, v, old, new, before, q, y, mask)
        last = o[:, -1].clone()
        ctx.mark_non_differentiable(last)
        return y, h[:, -1, 0].clone(), h[:, -1, 1].clone(), last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dp: Tensor, dq: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        a, b, v, old, new, before, q, y, mask = ctx.saved_tensors
        flops.count("wkv4", 8 * y.numel())
        d_num = dy / q
        d_den = -d_num * y
        direct = torch.stack([d_num * old, d_den * old], dim=2)  # what y says about the state before it
        g = recur(
            a[:, 1:, None], torch.cat([direct[:, 1:], torch.stack([dp, dq], 1)[:, None]], dim=1), None, reverse=True
        )
        d_bonus = torch.addcmul(d_den, d_num, v) * new
        dk = torch.addcmul(d_bonus, torch.addcmul(g[:, :, 1], g[:, :, 0], v), b)
        dv = torch.addcmul(d_num * new, g[:, :, 0], b)
        d_log_a = (g * before).sum(2) * a
        if mask is not None:
            d_log_a = d_log_a * mask[..., None]
        d_first = torch.addcmul(direct[:, 0], a[:, :1], g[:, 0])
        return d_log_a.sum((0, 1)), d_bonus.sum((0, 1)), dk, dv, d_first[:, 0], d_first[:, 1], None, None


def exponents(w: Tensor, k: Tensor, o0: Tensor, mask: Tensor | None) -> Float[Tensor, "B T+1 C"]:
    """o_0 and every o_t = max(o_{t−1} + w, k_t); where `mask` is false, o_t = o_{t−1}."""
    if mask is not None:
        k = k.masked_fill(~mask[..., None], LOWEST)
        steps = torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1).cumsum(1)[..., None].to(w.dtype)
    o = torch.cat([o0[:, None], k], dim=1)
    span = 1
    while span < o.shape[1]:
        decay = span * w if mask is None else (steps[:, span:] - steps[:, :-span]) * w
        later = o[:, span:]
        torch.maximum(later, o[:, :-span] + decay, out=later)
        span *= 2
    return o
