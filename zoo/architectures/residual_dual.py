"""ResiDual: Post-LN and Pre-LN at once (Xie et al. 2023, arXiv:2304.14802).

    x ← LN(x + f(x)),    r ← r + f(x),    f = attention, then MLP,    out = x + LN(r)

Both streams, x and r, start at the embedding.
"""

from zoo.architectures import register
from zoo.architectures.pre_ln import pre_ln
from zoo.layers.attention import Attention
from zoo.types import Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Xie et al. 2023, ResiDual: Transformer with Dual Residual Connections, arXiv:2304.14802",
    source="https://github.com/microsoft/ResiDual",
    deviations=(
        "fairseq's scaling of the second stream for float16 is left out",
        "positions, GELU, biases and initialisation are pre_ln's: the two differ in the residual type only",
    ),
)
def residual_dual(**options: object) -> Recipe:
    """Post-LN and Pre-LN at once: one stream is normalised after each sum, one only gathers; both make the output."""
    return pre_ln(**options).replace(residual="residual_dual")
