"""Jamba: seven blocks of Mamba to one of attention, and experts in every other (Lieber et al. 2024, section 3).

    x ← x + f(RMSNorm(x)),    x ← x + g(RMSNorm(x)),    f = attention in the fifth of each eight blocks,    else Mamba
    g = SwiGLU, MoE, by turns
    Mamba    h_t = e^{Δ_t A} h_{t−1} + Δ_t B_t u_t,    y_t = (C_t h_t + D u_t) ⊙ SiLU(z_t)

`zoo.architectures.mamba` has Δ, B and C, here each behind an RMSNorm. Attention has no positions.
"""

import math
from typing import Literal

from zoo.architectures import register
from zoo.architectures.mamba import Mamba
from zoo.layers.attention import Attention
from zoo.layers.ranges import at_least_one
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="Lieber et al. 2024, Jamba: A Hybrid Transformer-Mamba Language Model, arXiv:2403.19887",
    source="https://github.com/huggingface/transformers (models/jamba)",
    deviations=(
        "2 of 8 experts; Jamba has 2 of 16",
        "experts are balanced by DeepSeek-V3's correction, not by an auxiliary loss",
    ),
)
def jamba(
    *,
    heads: int = 4,
    kv_heads: int = 1,
    experts: int = 8,
    top_k: int = 2,
    mlp_expand: float = 8 / 3,
    d_state: int = 16,
    d_conv: int = 4,
    expand: float = 2.0,
    dt_rank: int | Literal["auto"] = "auto",
    attn_layer_period: int = 8,
    attn_layer_offset: int = 4,
    expert_layer_period: int = 2,
    expert_layer_offset: int = 1,
) -> Recipe:
    """Jamba: Mamba in seven layers of eight, attention in the fifth, and a mixture of experts in every other layer.

    Attention stands in layers l with l mod `attn_layer_period` = `attn_layer_offset`, experts likewise. The hidden
    width of an MLP, and of each expert, is `mlp_expand` times the width. `d_state` to `dt_rank` are of Mamba.
    """
    at_least_one("jamba", attn_layer_period=attn_layer_period, expert_layer_period=expert_layer_period)
    mamba = Part(Mamba, d_state=d_state, d_conv=d_conv, expand=expand, dt_rank=dt_rank, inner_norms=True)
    attention = Part(Attention, heads=heads, kv_heads=kv_heads, bias=False)
    plain = Part("glu", activation="silu", expand=mlp_expand)
    mixture = Part("moe", experts=experts, top_k=top_k, shared=0, expand=mlp_expand, score="softmax", normalise=False)
    layers = range(math.lcm(attn_layer_period, expert_layer_period))
    return Recipe(
        tuple(attention if i % attn_layer_period == attn_layer_offset else mamba for i in layers),
        channel=tuple(mixture if i % expert_layer_period == expert_layer_offset else plain for i in layers),
        residual="pre",
        norm="rms",
        depth=8,
    )
