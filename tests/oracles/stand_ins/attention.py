"""Attention with other logits, caches or gates: plain torch in the place of kernels, by class."""

import torch
from fla import layers
from fla.layers import forgetting_attn, mla, yoco
from fla.ops.attn.naive import naive_parallel_attn
from fla.ops.forgetting_attn.naive import naive_forgetting_attn
from fla.ops.simple_gla.naive import naive_recurrent_simple_gla

CROSS_DECODER = "YOCOSharedKVBuilder, YOCOCrossAttention"


class CrossDecoder(torch.nn.Module):
    """The official cache and the official layer that reads it, as the official model calls them."""

    def __init__(self, layer_idx, qk_norm, norm_eps, **sizes):
        super().__init__()
        self.shared_kv_builder = yoco.YOCOSharedKVBuilder(**sizes, norm_eps=norm_eps)
        self.attn = yoco.YOCOCrossAttention(**sizes, qk_norm=qk_norm)

    def forward(self, x):
        k, v, _ = self.shared_kv_builder(x)
        return self.attn(x, k, v)


CrossDecoder.__module__ = yoco.__name__
setattr(layers, CROSS_DECODER, CrossDecoder)
mla.flash_attn_func = lambda q, k, v, causal, window_size: naive_parallel_attn(q, k, v, causal=causal)[0]
"""Its constructor asks for it."""


def forgetting():
    forgetting_attn.parallel_forgetting_attn = lambda q, k, v, g, **_: naive_forgetting_attn(q, k, v, g)


def latent():
    mla.MultiheadLatentAttention.forward.__defaults__ = (None, None, False, False)  # a mask, which it asks for, first


def retention():
    def gated(q, k, v, g, initial_state=None, output_final_state=False, **_):
        o, S = naive_recurrent_simple_gla(q, k, v, g, initial_state=initial_state)
        return o, S.mT.contiguous() if output_final_state else None  # asked for with values first

    yoco.chunk_simple_gla = yoco.fused_recurrent_simple_gla = gated


def cross():
    yoco.parallel_attn = lambda q, k, v, **_: naive_parallel_attn(q, k, v)[0]


STAND_INS = {
    "ForgettingAttention": forgetting,
    "MultiheadLatentAttention": latent,
    "YOCOGatedRetention": retention,
    CROSS_DECODER: cross,
}
