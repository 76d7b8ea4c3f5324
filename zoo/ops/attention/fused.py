"""Softmax attention by compiled loops, by blocks of products and compiled passes, or by torch's fused kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.attention import naive
from zoo.ops.kernel_log import log_kernel


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S V"],
    *,
    visible: Bool[Tensor, "#B #H #T S"] | None = None,
    causal: bool = False,
    bias: Float[Tensor, "#B #H T S"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "B H T V"]:
    """See `naive.attend`.

    Plain scores take `tiled.py` where loops multiply fast. What is left in bfloat16 on a CPU takes blocks: torch's
    kernel has a slow backward pass there, without matrix tiles one slower than plain matmuls, which serve where there
    is no numba. So does a bias that is learned, which no such kernel has a gradient for; with tiles other extras stay
    with torch.
    """
    plain = visible is None and bias is None
    if plain and forms.has_matmul_kernel(q.dtype, q, k, v):
        from zoo.ops.cpu import attention as tiled  # loads numba

        G = max(k.shape[1], v.shape[1])
        shared, scale_ = (naive.shared(k, G), naive.shared(v, G)), q.shape[3] ** -0.5 if scale is None else scale
        if tiled.serves(q, *shared, causal):
            log_kernel("attention", f"compiled, on {forms.matmul_backend(q.dtype)}")
            return tiled.TiledAttention.apply(q, *shared, causal, scale_)
    learned = bias is not None and bias.requires_grad
    if q.device.type == "cpu" and q.dtype is torch.bfloat16:
        if forms.supports() and k.dtype is v.dtype is q.dtype and (plain or learned or not forms.has_tiles()):
            return in_blocks(q, k, v, visible=visible, causal=causal, bias=bias, scale=scale)
        if not forms.has_tiles():
            log_kernel("attention", "matmul")
            return naive.attend(q, k, v, visible=visible, causal=causal, bias=bias, scale=scale)
    log_kernel("attention", "torch scaled_dot_product_attention")
    k, v = naive.shared(k, q.shape[1]), naive.shared(v, q.shape[1])
    if bias is None and causal and visible is None and q.shape[-2] == k.shape[-2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    weight = naive.allowed(q, k, visible, causal)
    if bias is not None:
        bias = bias.to(q.dtype)
        weight = bias if weight is None else bias.masked_fill(~weight, float("-inf"))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=weight, scale=scale)


def in_blocks(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S V"],
    *,
    visible: Bool[Tensor, "#B #H #T S"] | None = None,
    causal: bool = False,
    bias: Float[Tensor, "#B #H T S"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "B H T V"]:
    """`attend` by `compiled.CompiledAttention`: bfloat16, float32 or float64 on a CPU with numba."""
    from zoo.ops.cpu.attention_blocks import CompiledAttention  # loads numba

    H, S, K = q.shape[1], k.shape[2], q.shape[3]
    G = max(k.shape[1], v.shape[1])
    k, v = naive.shared(k, G).contiguous().flatten(0, 1), naive.shared(v, G).contiguous().flatten(0, 1)
    rows = q.contiguous().unflatten(1, (G, H // G)).flatten(0, 1)
    visible, bias = (None if x is None else x.expand(*x.shape[:3], S) for x in (visible, bias))
    y = CompiledAttention.apply(rows, k, v, visible, bias, G, causal, K**-0.5 if scale is None else scale)
    return y.unflatten(0, (-1, G)).flatten(1, 2)
