"""ReZero: residual branches without norms that start at zero (Bachlechner et al. 2020, arXiv:2003.04887).

    x ← x + α f(x),    f = attention, then MLP

Each branch has a number α of its own, which is learned from 0 on.
"""

from zoo.architectures import register
from zoo.architectures.pre_ln import pre_ln
from zoo.layers.attention import Attention
from zoo.types import Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Bachlechner et al. 2020, ReZero is All You Need: Fast Convergence at Large Depth, arXiv:2003.04887",
    source="https://github.com/majumderb/rezero (rezero/transformer/rztx.py)",
    deviations=(
        "a number for each branch; the official transformer layer has one for its two branches",
        "positions, GELU, biases and initialisation are pre_ln's: the two differ in the residual type only",
    ),
)
def rezero(**options: object) -> Recipe:
    """Transformer without norms: x + a f(x), with a learned number a for each branch that starts at zero."""
    return pre_ln(**options).replace(residual="rezero")
