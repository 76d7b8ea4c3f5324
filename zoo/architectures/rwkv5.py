"""TODO rwkv5."""

from __future__ import annotations

from zoo.architectures import register
from zoo.mixers.rwkv5 import ChannelMix, TimeMix
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
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v5/src/model.py, x052; RWKV-v5/cuda/wkv5_cuda.cu)",
    deviations=(
        HEADS,
        "channel mixing is 3.5 D wide inside, rounded to the nearest whole number; officially down to a multiple of 32",
        "where paper and official code differ we follow the code, RWKV-5.2, whose mixing vectors start as ramps",
        "no optional tiny attention, no learned 2-D positions",
        LOSS,
        AT_DEPTH_1,
    ),
)
def rwkv5(
    *, head_size: int = 32, dim_att: int | None = None, head_size_divisor: float = 8.0, expand: float = 3.5
) -> Recipe:
    """RWKV-5.2, Eagle: RWKV-4 with a matrix state for each head, a gate and a norm over heads."""
    mixer = Part(TimeMix, head_size=head_size, dim_att=dim_att, head_size_divisor=head_size_divisor)
    return _recipe(mixer, Part(ChannelMix, expand=expand), 1 if dim_att else max(1, head_size))
