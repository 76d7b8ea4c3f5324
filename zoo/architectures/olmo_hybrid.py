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
from zoo.layers.patterns import PATTERN, LayerType
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="Ai2 2026, OLMo Hybrid (the release of the weights)",
    source="https://github.com/huggingface/transformers (models/olmo_hybrid)",
    deviations=("the SwiGLU is 8/3 times as wide by default, officially 2.87",),
)
def olmo_hybrid(
    *,
    heads: int = 4,
    kv_heads: int | None = None,
    delta_heads: int | None = None,
    delta_value_heads: int | None = None,
    delta_head_dim: int | None = None,
    expand_v: float = 2.0,
    conv_size: int = 4,
    allow_neg_eigval: bool = True,
    layer_types: tuple[LayerType, ...] = PATTERN,
) -> Recipe:
    """OLMo Hybrid: Gated DeltaNet with negative eigenvalues in three layers of four, attention in the fourth.

    `heads` and `kv_heads` are those of attention. The delta rule has as many heads where `delta_heads` is None;
    `zoo.architectures.gated_delta_net` has its other options.
    """
    kinds = {
        "linear_attention": Part(
            GatedDeltaNet,
            heads=heads if delta_heads is None else delta_heads,
            value_heads=delta_value_heads,
            head_dim=delta_head_dim,
            expand_v=expand_v,
            conv_size=conv_size,
            allow_neg_eigval=allow_neg_eigval,
        ),
        "full_attention": Part(Attention, heads=heads, kv_heads=kv_heads, bias=False, qk_norm="full"),
    }
    return Recipe(
        tuple(kinds[kind] for kind in layer_types),
        channel=Part("glu", activation="silu", expand=8 / 3),
        residual=tuple({"linear_attention": "pre", "full_attention": "reordered"}[kind] for kind in layer_types),
        norm="rms",
    )
