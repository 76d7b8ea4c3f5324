"""Qwen3-Next: three blocks of Gated DeltaNet, then one of gated attention, each with experts (Qwen Team 2025).

    x ← x + f(RMSNorm(x)),    x ← x + MoE(RMSNorm(x)),    f = delta rule, delta rule, delta rule, attention, by turns
    delta rule    S ← α_t S_{t−1},    S_t = S + β_t k_t (v_t − Sᵀ k_t)ᵀ,    y_t = (N(S_tᵀ q_t) ⊙ SiLU(x_t W_g)) W_o
    attention    y_t = (Σ_{s ≤ t} softmax_s(N(q_t)·N(k_s) / √d) v_s ⊙ σ(x_t W_G)) W_O

`zoo.architectures.gated_delta_net` has α, β, q, k and v. N is RMSNorm, in attention before a quarter of it turns.
"""

from zoo.architectures import register
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.layers.attention import Attention
from zoo.layers.patterns import PATTERN, LayerType
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="Qwen Team 2025, Qwen3-Next: Towards Ultimate Training and Inference Efficiency (the release of the weights)",
    source="https://github.com/huggingface/transformers (models/qwen3_next)",
    deviations=(
        "2 of 8 experts and a shared one, each a third of a SwiGLU 8/3 times as wide; Qwen3-Next-80B-A3B has 10 of 512",
        "experts are balanced by DeepSeek-V3's correction, not by an auxiliary loss",
        "heads of the delta rule are by default gated_delta_net's, ¾ of the width with values twice as wide; "
        "officially all of it, and twice as many heads of values",
        "ε of the norm behind the delta rule is 10⁻⁵, officially 10⁻⁶",
        "the base of rotations is 10⁴, officially 10⁷; no multi-token prediction",
        "weights of the norms of queries and keys start at 1, officially 1 + w from w = 0",
    ),
)
def qwen3_next(
    *,
    heads: int = 4,
    kv_heads: int = 1,
    head_dim: int | None = None,
    delta_heads: int | None = None,
    delta_value_heads: int | None = None,
    delta_head_dim: int | None = None,
    expand_v: float = 2.0,
    conv_size: int = 4,
    norm_eps: float = 1e-5,
    experts: int = 8,
    top_k: int = 2,
    layer_types: tuple[LayerType, ...] = PATTERN,
) -> Recipe:
    """Qwen3-Next: Gated DeltaNet in three layers of four, gated attention in the fourth, and a mixture of experts.

    `heads`, `kv_heads` and `head_dim` are those of attention. The delta rule has as many heads where `delta_heads` is
    None; `zoo.architectures.gated_delta_net` has its other options, up to `norm_eps`.
    """
    kinds = {
        "linear_attention": Part(
            GatedDeltaNet,
            heads=heads if delta_heads is None else delta_heads,
            value_heads=delta_value_heads,
            head_dim=delta_head_dim,
            expand_v=expand_v,
            conv_size=conv_size,
            norm_eps=norm_eps,
        ),
        "full_attention": Part(
            Attention, heads=heads, kv_heads=kv_heads, head_dim=head_dim, bias=False, qk_norm=True, gate=True
        ),
    }
    return Recipe(
        tuple(kinds[kind] for kind in layer_types),
        channel=Part("moe", experts=experts, top_k=top_k, score="softmax", shared_gate=True),
        residual="pre",
        norm="rms_one",
        positions=Part("rope", fraction=0.25),
        width_multiple=8 * heads if head_dim is None else 1,  # a quarter of a head turns, in pairs
    )
