"""TODO h3_attention."""

import math

from zoo.architectures import get, register
from zoo.layers.attention import Attention
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="Fu et al. 2022, Hungry Hungry Hippos: Towards Language Modeling with State Space Models, arXiv:2212.14052",
    source="https://github.com/HazyResearch/H3 (src/models/ssm_seq.py, attn_layer_idx)",
    deviations=(
        "the paper has two attention layers in 12 or more, the second and the one in the middle; here one in four is "
        "attention, so that a stack of four has the second",
        "no positions at all, as in the official hybrid; initialisation of the attention layers is pre_ln's",
    ),
)
def h3_attention(*, heads: int = 4, d_state: int = 64) -> Recipe:
    """H3 with attention in one layer of four."""
    h3 = get("h3").make(d_state=d_state)
    attention = Part(Attention, heads=heads)
    return h3.replace(
        mixer=(h3.mixers[0], attention, h3.mixers[0], h3.mixers[0]),
        channel=h3.channels[0],
        width_multiple=math.lcm(h3.width_multiple, heads),
    )
