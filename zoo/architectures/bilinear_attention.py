"""TODO bilinear_attention."""

from zoo.architectures import register
from zoo.mixers.bilinear_attention import BilinearAttention
from zoo.types import Part, Recipe

_AS_PRE_LN = "positions, GELU, biases and initialisation are pre_ln's: the two differ in the residual type only"


@register(
    family="transformers",
    paper="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (the QK circuit, at full rank)",
    source="no official code; equal to attention where W_h = W_Q W_Kᵀ",
    deviations=(
        "scores are scaled by 1/√D, the width of what is multiplied; attention has 1/√d_h",
        _AS_PRE_LN,
    ),
)
def bilinear_attention(*, heads: int = 4) -> Recipe:
    """Transformer whose queries and keys are merged: one D×D form for each head scores pairs of inputs."""
    mixer = Part(BilinearAttention, heads=heads)
    return Recipe(mixer=mixer, residual="pre", positions="learned", width_multiple=heads)
