"""MiniMax-01: seven blocks of lightning attention, then one of softmax attention, each with experts (section 2).

    x ← RMSNorm(x),    x ← RMSNorm(α x + f(x)),    x ← RMSNorm(α x + MoE(x)),    f = lightning seven times, attention
    lightning    S_t = a S_{t−1} + k_t v_tᵀ,    y_t = (RMSNorm(S_tᵀ q_t) ⊙ σ(x_t W_g)) W_out
    attention    y_t = Σ_{s ≤ t} softmax_s(R_t q_t · R_s k_s / √d) v_s W_O

`zoo.architectures.lightning_attention` has the decays a; R turns half of each head. α is DeepNorm's, (2N)^{1/4} for N
blocks, 3.5566 for the 80 of the released model.
"""

from zoo.architectures import register
from zoo.architectures.lightning_attention import LightningAttention
from zoo.layers.attention import Attention
from zoo.layers.patterns import LayerType
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="MiniMax et al. 2025, MiniMax-01: Scaling Foundation Models with Lightning Attention, arXiv:2501.08313",
    source="https://github.com/MiniMax-AI/MiniMax-01; transformers, models/minimax",
    deviations=(
        "2 of 8 experts, each a SwiGLU half of 8/3 times as wide; MiniMax-Text-01 has 2 of 32",
        "experts are balanced by DeepSeek-V3's correction, not by an auxiliary loss",
        "values and outputs start smaller by DeepNorm's (8N)^{−1/4}",
    ),
)
def minimax(
    *,
    heads: int = 4,
    kv_heads: int = 1,
    head_dim: int | None = None,
    experts: int = 8,
    top_k: int = 2,
    layer_types: tuple[LayerType, ...] = ("linear_attention",) * 7 + ("full_attention",),
) -> Recipe:
    """MiniMax-01: lightning attention in seven layers of eight, softmax attention in the last, a mixture of experts."""
    kinds = {
        "linear_attention": Part(LightningAttention, heads=heads, head_dim=head_dim),
        "full_attention": Part(Attention, heads=heads, kv_heads=kv_heads, head_dim=head_dim, bias=False),
    }
    return Recipe(
        tuple(kinds[kind] for kind in layer_types),
        channel=Part("moe", experts=experts, top_k=top_k, shared=0, expand=4 / 3, score="softmax"),
        residual="deepnorm",
        norm="rms_eps5",
        embedding="normed",
        positions=Part("rope", fraction=0.5),
        depth=8,
        width_multiple=4 * heads if head_dim is None else 1,  # half of each head turns, in pairs
    )
