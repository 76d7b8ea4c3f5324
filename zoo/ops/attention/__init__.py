"""Softmax attention: by compiled loops where scores are plain, or by torch's fused kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops import forms
from zoo.ops.attention.naive import allowed
from zoo.ops.attention.naive import attend as attend_naive
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention.naive import check_shared, repeat
from zoo.ops.precision import common_dtype, no_autocast, promote
from zoo.ops.step_by_step import finite_or, step_by_step

__all__ = ["attend", "attend_naive"]

LEAST = 64
"""Queries and keys of which loops need more: their blocks would be half empty."""


@forms.computes(attend_naive)
def attend(q, k, v, *, visible=None, causal=False, bias=None, scale=None):  # type: ignore[no-untyped-def]
    """On a CPU the naive form decides, in float32, where the fast ones return numbers that are not finite.

    Raises:
        ValueError: heads of q do not share those of k and v evenly.
    """
    check_shared("attention.attend", q, k)
    check_shared("attention.attend", q, v)
    y = _attend(q, k, v, visible, causal, bias, scale)
    return finite_or(y, lambda: _attend_by_span(q, k, v, allowed(q, k, visible, causal), bias, scale).to(y.dtype))


def _attend_by_span(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, bias: Tensor | None, scale: float | None
) -> Tensor:
    """The naive form in float32 at least, by spans of queries."""
    masks = [
        x if x is None else x.expand(torch.broadcast_shapes(x.shape, (1, 1, q.shape[2], 1))) for x in (visible, bias)
    ]
    dtype = promote(q, k, v)
    q, k, v = (x.to(dtype) for x in (q, k, v))  # torch's products of bfloat16 mix rows of an odd length

    def span(q: Tensor, seen: Tensor | None, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        return attend_naive(q, k, v, visible=seen, bias=bias, scale=scale), state

    with no_autocast(q.device):
        return step_by_step(span, (q, *masks), q.new_empty(0))[0]


def _attend(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, causal: bool, bias: Tensor | None, scale: float | None
) -> Tensor:
    T, S = q.shape[2], k.shape[2]
    plain = visible is None and bias is None and q.dtype is k.dtype is v.dtype
    if plain and min(T, S) > LEAST and (S >= T or not causal):
        if form := forms.choose("attention", q, k, v):
            return form(q, k, v, causal, q.shape[3] ** -0.5 if scale is None else scale)
    else:
        log_kernel("attention", "torch")
    dtype = common_dtype(q, k, v)
    q, k, v = q.to(dtype), repeat(k.to(dtype), q.shape[1]), repeat(v.to(dtype), q.shape[1])
    if bias is None and causal and visible is None and S == T:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    weight = allowed(q, k, visible, causal)
    if bias is not None:
        bias = bias.to(q.dtype)
        weight = bias if weight is None else bias.masked_fill(~weight, float("-inf"))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=weight, scale=scale)
