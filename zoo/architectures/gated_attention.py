"""Gated attention: a sigmoid gate on the heads of a Transformer++ (Qiu et al. 2025, arXiv:2505.06708, section 2.2).

    head_h = softmax(N(Q_h) N(K_h)ᵀ / √d) V_h,    N = rotation after RMSNorm
    y = (concat(head_1, ..., head_H) ⊙ σ(x W_G)) W_O

The gate makes the way from W_V to W_O nonlinear, and lets a head pass on nothing without a key to look at for that:
sinks of attention vanish. This is the attention of Qwen3-Next, in which a quarter of the features turns.
"""

from zoo.architectures import register
from zoo.deviations import INITIAL_WEIGHTS
from zoo.layers.attention import Attention
from zoo.types import Part, Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Qiu et al. 2025, Gated Attention for Large Language Models: Non-linearity, Sparsity, and "
    "Attention-Sink-Free, arXiv:2505.06708, section 2.2",
    source="https://github.com/huggingface/transformers (models/qwen3_next, Qwen3NextAttention)",
    deviations=(
        "as many heads of keys and values as of queries by default, so that against transformer_pp the gate shows; "
        "officially each is shared among eight",
        "the base of rotations is 10⁴ (`positions: {rope: {fraction: 0.25, base: 1e7}}` is official)",
        "weights of the norms of queries and keys start at 1, officially 1 + w from w = 0; the SwiGLU is 8/3 times as "
        "wide in every layer, where Qwen3-Next has experts, and three layers in four of Gated DeltaNet",
        INITIAL_WEIGHTS,
    ),
)
def gated_attention(
    *, heads: int = 4, bias: bool = False, qk_norm: bool = True, gate: bool = True, **options: object
) -> Recipe:
    """Transformer++ with a sigmoid gate on the heads' outputs, norms of queries and keys, partial rotations."""
    return Recipe(
        Part(Attention, heads=heads, bias=bias, qk_norm=qk_norm, gate=gate, **options),
        channel=Part("glu", activation="silu", expand=8 / 3),
        residual="pre",
        norm="rms_one",
        positions=Part("rope", fraction=0.25),
        width_multiple=8 * heads,  # a quarter of a head is pairs of features
    )
