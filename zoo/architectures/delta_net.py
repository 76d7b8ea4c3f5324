"""TODO delta_net."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.delta_net import DeltaNet
from zoo.types import Part, Recipe


def _llama_like(mixer: Part, multiple: int) -> Recipe:
    """The official models' blocks: Pre-RMSNorm and SwiGLU."""
    channel = Part("glu", activation="silu", expand=8 / 3)
    return Recipe(mixer=mixer, channel=channel, residual="pre", norm="rms", width_multiple=multiple)


@register(
    family="fast weights and matrix states",
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
        DeltaNet,
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
