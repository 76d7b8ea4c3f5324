"""TODO rwkv7."""

from __future__ import annotations

from zoo.architectures import register
from zoo.mixers.rwkv7 import ChannelMix, TimeMix
from zoo.types import Part, Recipe

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
    paper='Peng et al. 2025, RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456, section 4',
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v7/train_temp/src/model.py, x070; RWKV-v7/rwkv_v7_numpy.py)",
    deviations=(
        HEADS,
        "the first layer has no v0, v1, v2, which the official code creates there and never uses",
        "matrices start as the official generate_init_weight leaves them, orthogonal, not as its layers' uniform draws",
        "the decay and a are computed in float32 under autocast too, officially in bfloat16",
        LOSS,
        AT_DEPTH_1,
    ),
)
def rwkv7(
    *,
    head_size: int = 32,
    decay_lora: int | None = None,
    a_lora: int | None = None,
    v_lora: int | None = None,
    gate_lora: int | None = None,
    head_size_divisor: float = 8.0,
    expand: float = 4.0,
) -> Recipe:
    """RWKV-7, Goose: a generalised delta rule on a matrix state, values mixed with the first layer's."""
    mixer = Part(
        TimeMix,
        head_size=head_size,
        decay_lora=decay_lora,
        a_lora=a_lora,
        v_lora=v_lora,
        gate_lora=gate_lora,
        head_size_divisor=head_size_divisor,
    )
    return _recipe(mixer, Part(ChannelMix, expand=expand), max(1, head_size))
