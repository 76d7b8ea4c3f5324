"""TODO rwkv4."""

from __future__ import annotations

from zoo.architectures import register
from zoo.mixers.rwkv4 import ChannelMix, TimeMix
from zoo.types import Part, Recipe

AT_DEPTH_1 = "at depth 1 the ramps over depth take layer 0's values, where the official code divides by zero"


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
    paper="Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era, arXiv:2305.13048, sections 3 and 4",
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v4/src/model.py, RWKV-v4/cuda/wkv_cuda.cu)",
    deviations=(
        "no head-QK term (a copying attention the official code can add to the logits)",
        AT_DEPTH_1,
    ),
)
def rwkv4(*, expand: float = 4.0) -> Recipe:
    """RWKV-4: attention with exponentially decaying weights in time, a gated squared ReLU in channels, token shift."""
    return _recipe(Part(TimeMix), Part(ChannelMix, expand=expand)).replace(embedding="rwkv4")
