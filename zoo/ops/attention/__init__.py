"""Softmax attention: by compiled loops where scores are plain, or by torch's fused kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops import forms
from zoo.ops.attention.naive import allowed
from zoo.ops.attention.naive import attend as attend_naive
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention.naive import check_shared, repeat
from zoo.ops.precision import at_least_fp32, common_dtype, no_autocast, promote
from zoo.ops.step_by_step import finite_or, step_by_step

__all__ = ["attend", "attend_naive"]

LEAST = 64
"""Queries and keys of which loops need more: their blocks would be half empty."""


@forms.computes(attend_naive)
def attend(q, k, v, *, visible=None, causal=False, bias=None, sink=None, scale=None):  # type: ignore[no-untyped-def]
    """A bias that is one for all queries costs as much as a few features more, and a sink as much as one key more.

    On a CPU the naive form decides, in float32, where the fast ones return numbers that are not finite.

    Raises:
        ValueError: heads of q do not share those of k and v evenly.
    """
    check_shared("attention.attend", q, k)
    check_shared("attention.attend", q, v)
    y = _attend(q, k, v, visible, causal, bias, sink, scale)
    return finite_or(y, lambda: _attend_by_span(q, k, v, allowed(q, k, visible, causal), bias, sink, scale).to(y.dtype))


def _attend_by_span(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visible: Tensor | None,
    bias: Tensor | None,
    sink: Tensor | None,
    scale: float | None,
) -> Tensor:
    """The naive form in float32 at least, by spans of queries."""
    masks = [
        x if x is None else x.expand(torch.broadcast_shapes(x.shape, (1, 1, q.shape[2], 1))) for x in (visible, bias)
    ]
    dtype = promote(q, k, v)
    q, k, v = (x.to(dtype) for x in (q, k, v))  # torch's products of bfloat16 mix rows of an odd length

    def span(q: Tensor, seen: Tensor | None, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        return attend_naive(q, k, v, visible=seen, bias=bias, sink=sink, scale=scale), state

    with no_autocast(q.device):
        return step_by_step(span, (q, *masks), q.new_empty(0))[0]


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visible: Tensor | None,
    causal: bool,
    bias: Tensor | None,
    sink: Tensor | None,
    scale: float | None,
) -> Tensor:
    if sink is not None:
        k, v, visible, bias = _with_sink(k, v, visible, bias, sink)
    if bias is not None and bias.shape[2] == 1 < q.shape[2]:
        scale = q.shape[3] ** -0.5 if scale is None else scale
        q, k = _with_features(q, k, bias[:, :, 0] / scale)
        bias = None
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


def _with_sink(
    k: Tensor, v: Tensor, visible: Tensor | None, bias: Tensor | None, sink: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """A key of zeros before all others, with a value of zeros; its score is the sink, as a bias."""
    H, S = len(sink), k.shape[2]
    bias = sink.new_zeros(1, 1, 1, S) if bias is None else bias
    B, _, T, _ = bias.shape
    bias = torch.cat([sink[:, None, None].expand(B, H, T, 1), bias.expand(B, H, T, S)], dim=-1)
    visible = None if visible is None else F.pad(visible, (1, 0), value=True)
    return F.pad(k, (0, 0, 1, 0)), F.pad(v, (0, 0, 1, 0)), visible, bias


def _with_features(q: Tensor, k: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """q with features that are 1, and k with one that is the bias (B H S) of each key, and zeros.

    In half precision three sum up to the bias, to the digits of float32: one of thousands, rounded to 8 bits, would be
    off by tens. The first of them has the slope. Zeros fill up the width, as fused kernels ask for multiples of 8.
    """
    dtype, rest, parts = common_dtype(q, k), at_least_fp32(bias), []
    for _ in range(3 if dtype.itemsize < 4 else 1):
        parts.append(rest.to(dtype))
        rest = (rest - parts[-1]).detach()
    k = repeat(k, max(k.shape[1], bias.shape[1]))
    beside = F.pad(torch.stack(parts, dim=-1), (0, -(q.shape[3] + len(parts)) % 8)).expand(*k.shape[:3], -1)
    ones = q.new_ones(*q.shape[:3], beside.shape[3], dtype=dtype)
    return torch.cat([q.to(dtype), ones], dim=-1), torch.cat([k.to(dtype), beside], dim=-1)
