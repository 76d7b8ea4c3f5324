"""Kimi Linear: three blocks of Kimi delta attention, then one of latent attention, each with experts (section 4).

    x ← x + f(RMSNorm(x)),    x ← x + MoE(RMSNorm(x)),    f = delta rule, delta rule, delta rule, attention, by turns
    delta rule    S ← diag(α_t) S_{t−1},    S_t = S + β_t k_t (v_t − Sᵀ k_t)ᵀ,    y_t = (RMSNorm(S_tᵀ q_t) ⊙ σ(g_t)) W_o
    attention    c = RMSNorm(x W_DKV),    y_t = concat_h(Σ_{s ≤ t} softmax_s(q_t·k_s / √d) v_s) W_O

`zoo.architectures.kda` has α, β and g, `zoo.architectures.mla` keys and values made of c. Attention has no positions.
"""

import math
from typing import Literal

from zoo.architectures import register
from zoo.architectures.kda import KDA
from zoo.architectures.mla import MultiheadLatentAttention
from zoo.layers.patterns import PATTERN, LayerType
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="Kimi Team 2025, Kimi Linear: An Expressive, Efficient Attention Architecture, arXiv:2510.26692",
    source="https://github.com/MoonshotAI/Kimi-Linear; transformers, models/kimi_linear",
    deviations=(
        "2 of 8 experts and a shared one, each a third of a SwiGLU 8/3 times as wide; Kimi Linear 48B-A3B has 8 of 256",
        "the first layer has experts as well, where the official model has one plain MLP (`mlp_layer_types`)",
        "sizes of heads and of the latent are those of kda and mla by default",
    ),
)
def kimi_linear(
    *,
    heads: int = 4,
    q_lora_rank: int | None = None,
    kv_lora_rank: int | None = None,
    qk_rope_head_dim: int | None = None,
    qk_nope_head_dim: int | None = None,
    v_head_dim: int | None = None,
    delta_heads: int | None = None,
    delta_head_dim: int | None = None,
    conv_size: int = 4,
    experts: int = 8,
    top_k: int = 2,
    shared: int = 1,
    expert_expand: float = 8 / 9,
    normalise: bool = True,
    scale: float = 2.446,
    mlp_expand: float = 8 / 3,
    layer_types: tuple[LayerType, ...] = PATTERN,
    mlp_layer_types: tuple[Literal["dense", "sparse"], ...] = ("sparse",),
) -> Recipe:
    """Kimi Linear: Kimi delta attention in three layers of four, latent attention without positions in the fourth.

    `heads` and what follows up to `v_head_dim` are of attention (see mla), `experts` up to `scale` of the mixture (see
    moe). `layer_types` and `mlp_layer_types` are repeated over the layers, the shorter beside the longer.
    """
    mixers = {
        "linear_attention": Part(
            KDA, heads=heads if delta_heads is None else delta_heads, head_dim=delta_head_dim, conv_size=conv_size
        ),
        "full_attention": Part(
            MultiheadLatentAttention,
            heads=heads,
            q_lora_rank=q_lora_rank,
            kv_lora_rank=kv_lora_rank,
            qk_rope_head_dim=qk_rope_head_dim,
            qk_nope_head_dim=qk_nope_head_dim,
            v_head_dim=v_head_dim,
            norm_eps=1e-6,
        ),
    }
    mixture = {"experts": experts, "top_k": top_k, "shared": shared, "normalise": normalise, "scale": scale}
    channels = {
        "dense": Part("glu", activation="silu", expand=mlp_expand),
        "sparse": Part("moe", expand=expert_expand, **mixture),
    }
    layers = range(math.lcm(len(layer_types), len(mlp_layer_types)))
    return Recipe(
        tuple(mixers[layer_types[i % len(layer_types)]] for i in layers),
        channel=tuple(channels[mlp_layer_types[i % len(mlp_layer_types)]] for i in layers),
        residual="pre",
        norm="rms_eps5",
    )
