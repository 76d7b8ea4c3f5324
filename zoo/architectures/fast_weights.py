"""Fast weight programmers: linear attention and the delta rules."""

from typing import Literal

from zoo.architectures import register
from zoo.types import Part, Recipe


@register(
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
        "fast_weights",
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


@register(
    paper="Yang et al. 2024, Parallelizing Linear Transformers with the Delta Rule over Sequence Length, "
    "arXiv:2406.06484",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/delta_net.py, fla/models/delta_net)",
    deviations=(
        "queries are scaled by 1/√d, as in the official code; the paper has no scale (but for ε the norm removes it)",
        "values pass through SiLU after their convolution, as in the official code",
        "the SwiGLU is 8/3 times as wide, not rounded up to a multiple of 256",
        "weights start at N(0, 1/fan_in), not N(0, 0.02), the projection to the residual at 1/√(2·depth) of it",
        "convolutions keep PyTorch's initial values, as in the official layer alone; the official model has N(0, 0.02)",
    ),
)
def delta_net(
    *,
    heads: int = 4,
    expand_k: float = 1.0,
    expand_v: float = 1.0,
    use_beta: bool = True,
    use_gate: bool = False,
    use_short_conv: bool = True,
    conv_size: int = 4,
    conv_bias: bool = False,
    allow_neg_eigval: bool = False,
    qk_activation: Literal["silu", "relu", "elu", "identity"] = "silu",
    qk_norm: Literal["l2", "sum"] = "l2",
) -> Recipe:
    """DeltaNet: linear attention that overwrites what a key held, with short convolutions and unit keys."""
    mixer = Part(
        "delta_net",
        heads=heads,
        expand_k=expand_k,
        expand_v=expand_v,
        use_beta=use_beta,
        use_gate=use_gate,
        use_short_conv=use_short_conv,
        conv_size=conv_size,
        conv_bias=conv_bias,
        allow_neg_eigval=allow_neg_eigval,
        qk_activation=qk_activation,
        qk_norm=qk_norm,
    )
    return _llama_like(mixer, heads)


@register(
    paper="Yang, Kautz and Hatamizadeh 2025, Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/gated_deltanet.py)",
    deviations=(
        "4 heads of ¾ of the width between them (all of it without a gate), the official advice for any width; "
        "the official default is 6 heads of 256",
        "e^A_log starts at 1e-4 at least; the official U(0, 16) may draw 0, whose logarithm would never move",
        "the SwiGLU is 8/3 times as wide, not rounded up to a multiple of 256",
        "weights start at N(0, 1/fan_in), not N(0, 0.02), the projection to the residual at 1/√(2·depth) of it",
        "convolutions keep PyTorch's initial values, as in the official layer alone; the official model has N(0, 0.02)",
    ),
)
def gated_delta_net(
    *,
    heads: int = 4,
    head_dim: int | None = None,
    expand_v: float = 2.0,
    value_heads: int | None = None,
    use_gate: bool = True,
    use_short_conv: bool = True,
    conv_size: int = 4,
    conv_bias: bool = False,
    allow_neg_eigval: bool = False,
    output_gate_activation: Literal["swish", "sigmoid"] = "swish",
) -> Recipe:
    """Gated DeltaNet: the delta rule with a decay per head, short convolutions, unit keys and an output gate."""
    mixer = Part(
        "gated_delta_net",
        heads=heads,
        head_dim=head_dim,
        expand_v=expand_v,
        value_heads=value_heads,
        use_gate=use_gate,
        use_short_conv=use_short_conv,
        conv_size=conv_size,
        conv_bias=conv_bias,
        allow_neg_eigval=allow_neg_eigval,
        output_gate_activation=output_gate_activation,
    )
    return _llama_like(mixer, 4 * heads if head_dim is None else 1)  # so that ¾ of the width divides


def _llama_like(mixer: Part, multiple: int) -> Recipe:
    """The official models' blocks: Pre-RMSNorm and SwiGLU."""
    channel = Part("glu", activation="silu", expand=8 / 3)
    return Recipe(mixer=mixer, channel=channel, residual="pre", norm="rms", width_multiple=multiple)
