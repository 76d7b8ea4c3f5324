"""TODO gated_delta_net."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.gated_delta_net import GatedDeltaNet
from zoo.types import Part, Recipe


def _llama_like(mixer: Part, multiple: int) -> Recipe:
    """The official models' blocks: Pre-RMSNorm and SwiGLU."""
    channel = Part("glu", activation="silu", expand=8 / 3)
    return Recipe(mixer=mixer, channel=channel, residual="pre", norm="rms", width_multiple=multiple)


@register(
    family="fast weights and matrix states",
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
        GatedDeltaNet,
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
