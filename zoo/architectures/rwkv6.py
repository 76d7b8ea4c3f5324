"""TODO rwkv6."""

from __future__ import annotations

from zoo.architectures import register
from zoo.mixers.rwkv6 import ChannelMix, TimeMix
from zoo.types import Part, Recipe

EAGLE_AND_FINCH = (
    "Peng et al. 2024, Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence, "
    "arXiv:2404.05892, section 4"
)
AT_DEPTH_1 = "at depth 1 the ramps over depth take layer 0's values, where the official code divides by zero"
HEADS = "heads of 32 channels, where the official code has 64: narrow models then still have several"
LOSS = "no L2Wrap (a pull of the largest logit to zero that the official code adds to the gradient)"


def _recipe(mixer: Part, channel: Part, width_multiple: int = 1) -> Recipe:
    return Recipe(
        mixer=mixer,
        channel=channel,
        residual="pre",
        norm="layer",
        positions="none",
        embedding="rwkv5",
        head="rwkv4",
        width_multiple=width_multiple,
    )


@register(
    family="RWKV",
    paper=EAGLE_AND_FINCH,
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v5/src/model.py, x060; RWKV-v5/cuda/wkv6_cuda.cu)",
    deviations=(
        HEADS,
        "channel mixing is 3.5 D wide inside, rounded to the nearest whole number; officially down to a multiple of 32",
        "the decay's low-rank part is computed in float32 under autocast too, officially in bfloat16",
        "the variants x060a (low-rank gate) and x060b (no gate) are not offered",
        LOSS,
        AT_DEPTH_1,
    ),
)
def rwkv6(
    *,
    head_size: int = 32,
    dim_att: int | None = None,
    mix_lora: int = 32,
    decay_lora: int = 64,
    head_size_divisor: float = 8.0,
    expand: float = 3.5,
) -> Recipe:
    """RWKV-6, Finch: RWKV-5 with a token shift and a decay that follow the data."""
    mixer = Part(
        TimeMix,
        head_size=head_size,
        dim_att=dim_att,
        mix_lora=mix_lora,
        decay_lora=decay_lora,
        head_size_divisor=head_size_divisor,
    )
    return _recipe(mixer, Part(ChannelMix, expand=expand), 1 if dim_att else max(1, head_size))
