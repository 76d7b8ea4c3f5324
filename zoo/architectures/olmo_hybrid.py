"""OLMo Hybrid: three blocks of Gated DeltaNet, then one of attention (Ai2 2026).

    delta rule    x ← x + f(RMSNorm(x)),    x ← x + SwiGLU(RMSNorm(x))
    attention    x ← x + RMSNorm(f(x)),    x ← x + RMSNorm(SwiGLU(x))
    f = delta rule, delta rule, delta rule, attention, by turns
    S ← α_t S_{t−1},    S_t = S + β_t k_t (v_t − Sᵀ k_t)ᵀ,    β_t ∈ (0, 2)

Norms stand before the layers of the delta rule and behind those of attention, as in OLMo 2. With β up to 2 the state's
eigenvalues may be negative. Attention norms its queries and keys and has no positions.
"""

from zoo.architectures import register
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.layers.attention import Attention
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="Ai2 2026, OLMo Hybrid (the release of the weights)",
    source="https://github.com/huggingface/transformers (models/olmo_hybrid)",
    deviations=(
        "queries and keys are normed head by head, officially over all heads at once",
        "heads of the delta rule are gated_delta_net's, ¾ of the width with values twice as wide",
        "the SwiGLU is 8/3 times as wide, officially 2.87",
    ),
)
def olmo_hybrid(*, heads: int = 4, kv_heads: int | None = None) -> Recipe:
    """OLMo Hybrid: Gated DeltaNet with negative eigenvalues in three layers of four, attention in the fourth."""
    delta = Part(GatedDeltaNet, heads=heads, allow_neg_eigval=True)
    attention = Part(Attention, heads=heads, kv_heads=kv_heads, bias=False, qk_norm=True)
    return Recipe(
        (delta, delta, delta, attention),
        channel=Part("glu", activation="silu", expand=8 / 3),
        residual=("pre", "pre", "pre", "reordered"),
        norm="rms",
    )
