"""Jamba: seven blocks of Mamba to one of attention, and experts in every other (Lieber et al. 2024, section 3).

    x ← x + f(RMSNorm(x)),    x ← x + g(RMSNorm(x)),    f = attention in the fifth of each eight blocks,    else Mamba
    g = SwiGLU, MoE, by turns
    Mamba    h_t = e^{Δ_t A} h_{t−1} + Δ_t B_t u_t,    y_t = (C_t h_t + D u_t) ⊙ SiLU(z_t)

`zoo.architectures.mamba` has Δ, B and C, here each behind an RMSNorm. Attention has no positions.
"""

from zoo.architectures import register
from zoo.architectures.mamba import Mamba
from zoo.layers.attention import Attention
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
def jamba(*, heads: int = 4, kv_heads: int = 1, experts: int = 8, top_k: int = 2, d_state: int = 16) -> Recipe:
    """Jamba: Mamba in seven layers of eight, attention in the fifth, and a mixture of experts in every other layer."""
    mamba = Part(Mamba, d_state=d_state, inner_norms=True)
    attention = Part(Attention, heads=heads, kv_heads=kv_heads, bias=False)
    plain = Part("glu", activation="silu", expand=8 / 3)
    mixture = Part("moe", experts=experts, top_k=top_k, shared=0, expand=8 / 3, score="softmax", normalise=False)
    return Recipe(
        (mamba,) * 4 + (attention,) + (mamba,) * 3,
        channel=(plain, mixture) * 4,
        residual="pre",
        norm="rms",
        depth=8,
    )
