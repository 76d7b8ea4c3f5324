"""Linear attention, with and without decay: recurrent networks that train in chunks of matrix products."""

import math
from fractions import Fraction
from typing import Literal

from zoo.architectures import register
from zoo.types import Part, Recipe


@register(
    paper="Katharopoulos et al. 2020, Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention, "
    "arXiv:2006.16236",
    source="https://github.com/idiap/fast-transformers (fast_transformers/attention: attention_layer.py, "
    "causal_linear_attention.py, linear_attention.py)",
    deviations=(
        "1e-6 is added to every normaliser, as in the official code; the paper has no ε",
        "residual type, GELU, positions and initialisation are pre_ln's; the official encoder is Post-LN with ReLU",
    ),
)
def linear_transformer(*, heads: int = 4, eps: float = 1e-6) -> Recipe:
    """Transformer whose attention weighs by φ(q)·φ(k) with φ = elu + 1, which a state of fixed size sums up."""
    mixer = Part("linear_transformer", heads=heads, eps=eps)
    return Recipe(mixer=mixer, residual="pre", positions="learned", width_multiple=heads)


@register(
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
        mixer=Part("retnet", heads=heads, value_factor=value_factor, gate_fn=gate_fn, form=form),
        channel=Part("glu", activation="gelu", expand=4 / 3),
        residual="pre",
        norm="rms",
        width_multiple=_multiple(heads, 0.5, value_factor),
    )


@register(
    paper="Yang et al. 2024, Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv:2312.06635",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/gla.py, fla/models/gla)",
    deviations=(
        "the norm is called g_norm; official weights that call it g_norm_swish_gate load as well",
        "the SwiGLU is 8/3 times as wide, not rounded up to a multiple of 256",
        "weights start at N(0, 1/fan_in), not N(0, 0.02), and the projection into the residual stream at 1/√(2·depth) "
        "of it; convolutions keep PyTorch's initial values, as in the official layer (the official model: N(0, 0.02))",
        "gates and feature maps are swish, sigmoid or relu only",
    ),
)
def gla(
    *,
    heads: int = 4,
    kv_heads: int | None = None,
    expand_k: float = 0.5,
    expand_v: float = 1.0,
    use_short_conv: bool = False,
    conv_size: int = 4,
    use_output_gate: bool = True,
    gate_fn: Literal["swish", "sigmoid", "relu"] = "swish",
    gate_logit_normalizer: float = 16.0,
    gate_low_rank_dim: int = 16,
    clamp_min: float | None = None,
) -> Recipe:
    """Gated linear attention: every key channel of the state decays as the input says; output gate, RMSNorm, SwiGLU."""
    mixer = Part(
        "gla",
        heads=heads,
        kv_heads=kv_heads,
        expand_k=expand_k,
        expand_v=expand_v,
        use_short_conv=use_short_conv,
        conv_size=conv_size,
        use_output_gate=use_output_gate,
        gate_fn=gate_fn,
        gate_logit_normalizer=gate_logit_normalizer,
        gate_low_rank_dim=gate_low_rank_dim,
        clamp_min=clamp_min,
    )
    return Recipe(
        mixer=mixer,
        channel=Part("glu", activation="silu", expand=8 / 3),
        residual="pre",
        norm="rms",
        width_multiple=_multiple(heads, expand_k, expand_v),
    )


@register(
    paper="Arora et al. 2024, Simple Linear Attention Language Models Balance the Recall-Throughput Tradeoff, "
    "arXiv:2402.18668",
    source="https://github.com/HazyResearch/based (based/models/mixers, "
    "train/configs/experiment/reference/based-360m.yaml); fla/layers/based.py",
    deviations=(
        "layers repeat the official 360M model's order of five: gated convolution, Taylor attention, window, two more "
        "gated convolutions. The official 27 layers are five such rounds and two convolutions",
        "φ holds a product of two features once, scaled, as in fla; HazyResearch's holds it twice, which is equal",
        "fla's BasedLinearAttention splits q and k into heads as wide as the values; we follow its forward_reference",
        "the normaliser is at least ½, which only rounding could break",
        "a window of 64 steps, itself included; the official window_size of 128 looks 64 back. Nothing rotates in it, "
        "as in the official configuration: the convolutions tell order",
        "4 heads by default, where the official code has 12 or 16; weights start at N(0, 1/fan_in), not N(0, 0.02)",
    ),
)
def based(*, heads: int = 4, feature_dim: int = 16, window: int | None = None, kernel_size: int = 3) -> Recipe:
    """Based: Taylor linear attention over everything, softmax in a small window, and gated short convolutions."""
    convolution = Part("base_conv", kernel_size=kernel_size)
    attention = Part("based", heads=heads, feature_dim=feature_dim)
    local = Part("local", heads=heads, window=window)
    return Recipe(
        mixer=(convolution, attention, local, convolution, convolution),
        channel=Part("glu", activation="silu", expand=2.0),
        residual="pre",
        norm="rms",
        depth=5,
        width_multiple=heads,
    )


def _multiple(heads: int, *expansions: float) -> int:
    """The smallest width of which every expansion divides into heads."""
    shares = [heads / Fraction(expand).limit_denominator(1000) for expand in expansions if expand > 1e-3]
    return math.lcm(heads, *(share.numerator for share in shares))
