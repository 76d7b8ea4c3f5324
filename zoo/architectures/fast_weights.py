"""TODO fast_weights."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.fast_weights import FastWeights
from zoo.types import Part, Recipe


@register(
    family="fast weights and matrix states",
    paper="Schlag, Irie, Schmidhuber 2021, Linear Transformers Are Secretly Fast Weight Programmers, arXiv:2102.11174",
    source="https://github.com/IDSIA/lmtool-fwp (src/utils/cuda_fast_weight_layer.py, src/mem_transformer.py)",
    deviations=(
        "the official pre-norm layer adds its output to the normed input, LN(x) + f(LN(x)); ours is x + f(LN(x)), as "
        "in the authors' later IDSIA/recurrent-fwp",
        "parameters are called slow_net and out_linear, as in recurrent-fwp; their rows are those of lmtool-fwp's "
        "qkvb_net (qkv_net for the sum rule) and o_net",
        "φ(x) is divided by its sum or 1e-6, whichever is larger; the official code divides 0 by 0 where φ vanishes",
        "attention_norm divides outputs only; the official variants that also divide what a key retrieves (attn_type "
        "44 to 46) and FAVOR+ as φ (25, 35) are not offered",
        "4 heads of width/4 and an MLP 4 times as wide, where the paper has 8 heads of width/8 and 16 times",
        "no positions (the official --no_pos): the recurrence needs none; the official default is sinusoidal",
        "nu is 2 by default, as in the official layer; the official model has 3",
        "weights start at N(0, 1/fan_in), not N(0, 0.02), the projection to the residual at 1/√(2·depth) of it",
    ),
)
def fast_weights(
    *,
    heads: int = 4,
    rule: Literal["sum", "delta"] = "delta",
    feature_map: Literal["elu", "relu", "dpfp"] = "elu",
    nu: int = 2,
    normalise: bool = True,
    attention_norm: bool | None = None,
) -> Recipe:
    """Fast weight programmer: a slow network writes into a matrix, by outer products or (default) the delta rule."""
    mixer = Part(
        FastWeights,
        heads=heads,
        rule=rule,
        feature_map=feature_map,
        nu=nu,
        normalise=normalise,
        attention_norm=attention_norm,
    )
    return Recipe(
        mixer=mixer, channel=Part("mlp", activation="relu"), residual="pre", norm="layer", width_multiple=heads
    )
