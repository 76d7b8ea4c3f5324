"""Sandwich-LN: a second LayerNorm on the way out of each branch (Ding et al. 2021, arXiv:2105.13290, section 2.4).

    x ← x + LN(f(LN(x))),    f = attention, then MLP

Otherwise it is the Pre-LN transformer.
"""

from zoo.architectures import register
from zoo.architectures.pre_ln import pre_ln
from zoo.layers.attention import Attention
from zoo.types import Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Ding et al. 2021, CogView: Mastering Text-to-Image Generation, arXiv:2105.13290, section 2.4",
    source="https://github.com/THUDM/CogView (mpu/transformer.py)",
    deviations=(
        "no PB-relax of the attention scores, which only guards float16",
        "positions, GELU, biases and initialisation are pre_ln's: the two differ in the residual type only",
    ),
)
def sandwich_ln(**options: object) -> Recipe:
    """Pre-LN with a second LayerNorm on the way out of each branch, x + LN(f(LN(x)))."""
    return pre_ln(**options).replace(residual="sandwich")
