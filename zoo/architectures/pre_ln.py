"""The Pre-LN transformer: a LayerNorm in each branch (Xiong et al. 2020, arXiv:2002.04745).

    x ← x + f(LN(x)),    f = attention, then MLP,    out = LN(x)
    head_h = softmax(Q_h K_hᵀ / √d_h) V_h,    attention(x) = concat(head_1, ..., head_H) W_O

The last norm follows the last block.
"""

from zoo.architectures import register
from zoo.layers.attention import Attention
from zoo.types import Part, Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Xiong et al. 2020, On Layer Normalization in the Transformer Architecture, arXiv:2002.04745",
    source="https://github.com/openai/gpt-2 (src/model.py)",
    deviations=(
        "GELU is exact (erf), where GPT-2 uses the tanh approximation",
        "weights start at N(0, 1/fan_in), not GPT-2's N(0, 0.02), from which small widths do not learn",
        "the output head is not tied to the token table unless `tie` says so",
    ),
)
def pre_ln(**options: object) -> Recipe:
    """Transformer with LayerNorm inside the residual branch, x + f(LN(x)), and one more LayerNorm at the end."""
    return Recipe(Part(Attention, **options), residual="pre", positions="learned")
