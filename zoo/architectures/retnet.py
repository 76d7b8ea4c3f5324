"""TODO retnet."""

import math
from fractions import Fraction
from typing import Literal

from zoo.architectures import register
from zoo.mixers.retnet import Retention
from zoo.types import Part, Recipe


def _multiple(heads: int, *expansions: float) -> int:
    """The smallest width of which every expansion divides into heads."""
    shares = [heads / Fraction(expand).limit_denominator(1000) for expand in expansions if expand > 1e-3]
    return math.lcm(heads, *(share.numerator for share in shares))


@register(
    family="fast weights and matrix states",
    paper="Sun et al. 2023, Retentive Network: A Successor to Transformer for Large Language Models, arXiv:2307.08621",
    source="https://github.com/microsoft/torchscale (torchscale/component/multiscale_retention.py, "
    "torchscale/architecture/retnet.py)",
    deviations=(
        "form=recurrent, the default, divides scores by √Σγ^n only, as the official recurrent form; the official "
        "parallel form (form=parallel) also divides by the sum of their moduli, at least 1. The RMSNorm undoes both "
        "but for its ε: the two differ by about 1e-5. As that sum has no state of fixed size, form=parallel cannot be "
        "continued",
        "the official chunkwise form, which normalises in a third way, is not offered",
        "keys are scaled by 1/√d, rotations are plain, without xPos magnitudes, and blocks are Pre-RMSNorm with a GLU, "
        "all as in the official code; the paper has LayerNorm and an MLP without gate",
        "values are twice as wide as the model, as in the paper; the official code's are 5/3 as wide. The GLU is 4/3 "
        "as wide, which makes a block of 12 D² weights, as both do",
        "the official heads are 256 wide; here there are 4, whatever the width",
    ),
)
def retnet(
    *,
    heads: int = 4,
    value_factor: float = 2.0,
    gate_fn: Literal["swish", "gelu"] = "swish",
    form: Literal["recurrent", "parallel"] = "recurrent",
) -> Recipe:
    """RetNet: rotated linear attention with a fixed decay per head, a norm per head and a gate."""
    return Recipe(
        mixer=Part(Retention, heads=heads, value_factor=value_factor, gate_fn=gate_fn, form=form),
        channel=Part("glu", activation="gelu", expand=4 / 3),
        residual="pre",
        norm="rms",
        width_multiple=_multiple(heads, 0.5, value_factor),
    )
