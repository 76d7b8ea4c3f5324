"""Kimi Linear: three blocks of Kimi delta attention, then one of latent attention, each with experts (section 4).

    x ← x + f(RMSNorm(x)),    x ← x + MoE(RMSNorm(x)),    f = delta rule, delta rule, delta rule, attention, by turns
    delta rule    S ← diag(α_t) S_{t−1},    S_t = S + β_t k_t (v_t − Sᵀ k_t)ᵀ,    y_t = (RMSNorm(S_tᵀ q_t) ⊙ σ(g_t)) W_o
    attention    c = RMSNorm(x W_DKV),    y_t = concat_h(Σ_{s ≤ t} softmax_s(q_t·k_s / √d) v_s) W_O

`zoo.architectures.kda` has α, β and g, `zoo.architectures.mla` keys and values made of c. Attention has no positions.
"""

from zoo.architectures import register
from zoo.architectures.kda import KDA
from zoo.architectures.mla import MultiheadLatentAttention
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="Kimi Team 2025, Kimi Linear: An Expressive, Efficient Attention Architecture, arXiv:2510.26692",
    source="https://github.com/MoonshotAI/Kimi-Linear; transformers, models/kimi_linear",
    deviations=(
        "2 of 8 experts and a shared one, each a third of a SwiGLU 8/3 times as wide; Kimi Linear 48B-A3B has 8 of 256",
        "the first layer has experts as well, where the official model has one plain MLP",
        "sizes of heads and of the latent are those of kda and mla",
    ),
)
def kimi_linear(*, heads: int = 4, experts: int = 8, top_k: int = 2) -> Recipe:
    """Kimi Linear: Kimi delta attention in three layers of four, latent attention without positions in the fourth."""
    delta = Part(KDA, heads=heads)
    return Recipe(
        (delta, delta, delta, Part(MultiheadLatentAttention, heads=heads)),
        channel=Part("moe", experts=experts, top_k=top_k, scale=2.446),
        residual="pre",
        norm="rms_eps5",
    )
