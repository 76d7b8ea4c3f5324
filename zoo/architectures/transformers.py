"""Transformers with full attention: where the norm stands, and what else has changed since 2017."""

from zoo.architectures import register
from zoo.types import Part, Recipe, Schedule

_INITIAL = "weights start at N(0, 1/fan_in), embeddings at N(0, 1/D), where the official code has its own constants"
_AS_PRE_LN = "positions, GELU, biases and initialisation are pre_ln's: the two differ in the residual type only"


@register(
    paper="Xiong et al. 2020, On Layer Normalization in the Transformer Architecture, arXiv:2002.04745",
    source="https://github.com/openai/gpt-2 (src/model.py)",
    deviations=(
        "GELU is exact (erf), where GPT-2 uses the tanh approximation",
        "weights start at N(0, 1/fan_in), not GPT-2's N(0, 0.02), from which small widths do not learn",
        "the output head is not tied to the token table unless `tie` says so",
    ),
)
def pre_ln(*, heads: int = 4) -> Recipe:
    """Transformer with LayerNorm inside the residual branch, x + f(LN(x)), and one more LayerNorm at the end."""
    return Recipe(mixer=Part("attention", heads=heads), residual="pre", positions="learned", width_multiple=heads)


@register(
    paper="Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762, section 3.1",
    source="https://github.com/tensorflow/tensor2tensor (transformer.py, layer_postprocess_sequence='dan')",
    deviations=(
        "differs from pre_ln in the place of the LayerNorm only: learned positions, GELU and initialisation are "
        "pre_ln's, so that the two isolate that question",
    ),
)
def post_ln(*, heads: int = 4) -> Recipe:
    """Transformer with LayerNorm after the residual sum, LN(x + f(x)), and no LayerNorm at the end."""
    return pre_ln(heads=heads).replace(residual="post")


@register(
    paper="Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762",
    source="https://github.com/tensorflow/tensor2tensor (tensor2tensor/models/transformer.py)",
    deviations=(
        "the figure in the first version of the paper and the official code at the time differ in the place of the "
        "LayerNorm; this is the text of section 5.4: dropout, then the sum, then the norm, with no norm at the end",
        "sines and cosines interleave, as in the text; tensor2tensor concatenates them",
        "label smoothing spreads ε evenly over all V classes, the right one included (ε/V, as torch does)",
        "as a language model the decoder without cross attention, as a classifier the encoder",
        "the schedule keeps its shape, warm-up and then √(warm-up / step), but peaks at the learning rate of the suite",
        "dropout on embeddings and sublayers as in the paper's text; none inside attention and feed-forward network",
        _INITIAL,
    ),
)
def transformer_2017(
    *, heads: int = 4, label_smoothing: float = 0.1, schedule: Schedule | None = "inverse_sqrt"
) -> Recipe:
    """The original encoder–decoder: Post-LN, ReLU, sinusoids, one table, label smoothing, inverse-√ schedule."""
    return Recipe(
        mixer=Part("attention", heads=heads),
        channel=Part("mlp", activation="relu"),
        cross=Part("cross_attention", heads=heads),
        residual="post",
        positions="sinusoidal",
        embedding="scaled",
        tie=True,
        dropout=0.1,
        label_smoothing=label_smoothing,
        schedule=schedule,
        width_multiple=heads,
    )


@register(
    paper="Radford et al. 2019, Language Models are Unsupervised Multitask Learners (GPT-2), section 2.3",
    source="https://github.com/openai/gpt-2 (src/model.py)",
    deviations=(
        "weights start at N(0, 1/fan_in), not at N(0, 0.02), from which small widths do not learn; projections into "
        "the residual stream are scaled by 1/√(2·depth), as the paper's text has it and the released code does not",
        "no dropout unless `dropout` says so (GPT-2 trained with 0.1)",
    ),
)
def gpt2(*, heads: int = 4) -> Recipe:
    """GPT-2: Pre-LN with learned positions, tanh GELU and an output head tied to the token table."""
    return Recipe(
        mixer=Part("attention", heads=heads),
        channel=Part("mlp", activation="gelu_tanh"),
        residual="pre",
        positions="learned",
        tie=True,
        width_multiple=heads,
    )


@register(
    paper="Touvron et al. 2023, LLaMA: Open and Efficient Foundation Language Models, arXiv:2302.13971, section 2.2",
    source="https://github.com/meta-llama/llama (llama/model.py)",
    deviations=(
        "rotations pair features i and i + d/2, as in transformers' Llama; the official code pairs 2i and 2i + 1 "
        "(`positions: {rope: {convention: interleaved}}`); the two are equal up to a permutation of W_Q and W_K",
        "the hidden width of SwiGLU is 8/3 of the width, rounded; not to a multiple of 256",
        _INITIAL,
    ),
)
def transformer_pp(*, heads: int = 4, kv_heads: int | None = None) -> Recipe:
    """Transformer++: RMSNorm, SwiGLU and rotary positions, without biases, as in Llama."""
    return Recipe(
        mixer=Part("attention", heads=heads, kv_heads=kv_heads, bias=False),
        channel=Part("glu", activation="silu", expand=8 / 3),
        residual="pre",
        norm="rms",
        positions="rope",
        width_multiple=2 * heads,
    )


@register(
    paper="Wang et al. 2022, DeepNet: Scaling Transformers to 1,000 Layers, arXiv:2203.00555",
    source="https://github.com/microsoft/torchscale (torchscale/architecture/encoder.py, decoder.py)",
    deviations=(
        "β scales N(0, 1/fan_in) where the official code scales Xavier's normal",
        "a block without a channel mixer counts as a layer, as one with both does",
        _AS_PRE_LN,
    ),
)
def deepnorm(*, heads: int = 4) -> Recipe:
    """Post-LN with a stronger residual, LN(α x + f(x)), and values, outputs and MLPs that start β times as large."""
    return pre_ln(heads=heads).replace(residual="deepnorm")


@register(
    paper="Ding et al. 2021, CogView: Mastering Text-to-Image Generation, arXiv:2105.13290, section 2.4",
    source="https://github.com/THUDM/CogView (mpu/transformer.py)",
    deviations=("no PB-relax of the attention scores, which only guards float16", _AS_PRE_LN),
)
def sandwich_ln(*, heads: int = 4) -> Recipe:
    """Pre-LN with a second LayerNorm on the way out of each branch, x + LN(f(LN(x)))."""
    return pre_ln(heads=heads).replace(residual="sandwich")


@register(
    paper="Xie et al. 2023, ResiDual: Transformer with Dual Residual Connections, arXiv:2304.14802",
    source="https://github.com/microsoft/ResiDual",
    deviations=("fairseq's scaling of the second stream for float16 is left out", _AS_PRE_LN),
)
def residual_dual(*, heads: int = 4) -> Recipe:
    """Post-LN and Pre-LN at once: one stream is normalised after each sum, one only gathers; both make the output."""
    return pre_ln(heads=heads).replace(residual="residual_dual")


@register(
    paper="Bachlechner et al. 2020, ReZero is All You Need: Fast Convergence at Large Depth, arXiv:2003.04887",
    source="https://github.com/majumderb/rezero (rezero/transformer/rztx.py)",
    deviations=(
        "a number for each branch; the official transformer layer has one for its two branches",
        _AS_PRE_LN,
    ),
)
def rezero(*, heads: int = 4) -> Recipe:
    """Transformer without norms: x + a f(x), with a learned number a for each branch that starts at zero."""
    return pre_ln(heads=heads).replace(residual="rezero")


@register(
    paper="Wang and Komatsuzaki 2021, GPT-J-6B; Chowdhery et al. 2022, PaLM, arXiv:2204.02311, section 2",
    source="https://github.com/kingoflolz/mesh-transformer-jax (mesh_transformer/layers.py)",
    deviations=("rotary positions and missing biases of GPT-J are left out", _AS_PRE_LN),
)
def parallel_block(*, heads: int = 4) -> Recipe:
    """Attention and MLP side by side under one norm, x + f(LN(x)) + g(LN(x))."""
    return pre_ln(heads=heads).replace(residual="parallel")


@register(
    paper="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (the QK circuit, at full rank)",
    source="no official code; equal to attention where W_h = W_Q W_Kᵀ",
    deviations=(
        "scores are scaled by 1/√D, the width of what is multiplied; attention has 1/√d_h",
        _AS_PRE_LN,
    ),
)
def bilinear_attention(*, heads: int = 4) -> Recipe:
    """Transformer whose queries and keys are merged: one D×D form for each head scores pairs of inputs."""
    mixer = Part("bilinear_attention", heads=heads)
    return Recipe(mixer=mixer, residual="pre", positions="learned", width_multiple=heads)
