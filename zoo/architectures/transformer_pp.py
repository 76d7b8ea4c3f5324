"""Transformer++, as in Llama (Touvron et al. 2023, arXiv:2302.13971, section 2.2).

    x ← x + f(RMSNorm(x)),    f = attention, then SwiGLU,    RMSNorm(x) = g ⊙ x / √(mean(x²) + ε)
    y_t = Σ_{s ≤ t} softmax_s(R_t q_t · R_s k_s / √d) v_s,    SwiGLU(x) = (SiLU(x W) ⊙ x V) W₂

R_t turns each pair of features of a head by an angle in proportion to t (rotary positions).
"""

from zoo.architectures import register
from zoo.layers.attention import Attention
from zoo.types import Part, Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Touvron et al. 2023, LLaMA: Open and Efficient Foundation Language Models, arXiv:2302.13971, section 2.2",
    source="https://github.com/meta-llama/llama (llama/model.py)",
    deviations=(
        "rotations pair features i and i + d/2, as in transformers' Llama; the official code pairs 2i and 2i + 1 "
        "(`positions: {rope: {convention: interleaved}}`); the two are equal up to a permutation of W_Q and W_K",
        "the hidden width of SwiGLU is 8/3 of the width, rounded; not to a multiple of 256",
        "weights start at N(0, 1/fan_in), embeddings at N(0, 1/D), where the official code has its own constants",
    ),
)
def transformer_pp(*, heads: int = 4, bias: bool = False, **options: object) -> Recipe:
    """Transformer++: RMSNorm, SwiGLU and rotary positions, without biases, as in Llama."""
    return Recipe(
        Part(Attention, heads=heads, bias=bias, **options),
        channel=Part("glu", activation="silu", expand=8 / 3),
        residual="pre",
        norm="rms",
        positions="rope",
        width_multiple=2 * heads,  # rotations turn pairs of features
    )
