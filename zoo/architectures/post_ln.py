"""The Post-LN transformer: a LayerNorm after each sum (Vaswani et al. 2017, arXiv:1706.03762, section 3.1).

    x ← LN(x + f(x)),    f = attention, then MLP

There is no norm at the end.
"""

from zoo.architectures import register
from zoo.architectures.pre_ln import pre_ln
from zoo.layers.attention import Attention
from zoo.types import Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762, section 3.1",
    source="https://github.com/tensorflow/tensor2tensor (transformer.py, layer_postprocess_sequence='dan')",
    deviations=(
        "differs from pre_ln in the place of the LayerNorm only: learned positions, GELU and initialisation are "
        "pre_ln's, so that the two isolate that question",
    ),
)
def post_ln(**options: object) -> Recipe:
    """Transformer with LayerNorm after the residual sum, LN(x + f(x)), and no LayerNorm at the end."""
    return pre_ln(**options).replace(residual="post")
