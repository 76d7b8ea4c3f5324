"""RWKV: recurrent networks that train like transformers."""

from __future__ import annotations

from zoo.architectures import register
from zoo.types import Part, Recipe

EAGLE_AND_FINCH = (
    "Peng et al. 2024, Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence, "
    "arXiv:2404.05892, section 4"
)
AT_DEPTH_1 = "at depth 1 the ramps over depth take layer 0's values, where the official code divides by zero"
HEADS = "heads of 32 channels, where the official code has 64: narrow models then still have several"
LOSS = "no L2Wrap (a pull of the largest logit to zero that the official code adds to the gradient)"


@register(
    paper="Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era, arXiv:2305.13048, sections 3 and 4",
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v4/src/model.py, RWKV-v4/cuda/wkv_cuda.cu)",
    deviations=(
        "no head-QK term (a copying attention the official code can add to the logits)",
        AT_DEPTH_1,
    ),
)
def rwkv4(*, expand: float = 4.0) -> Recipe:
    """RWKV-4: attention with exponentially decaying weights in time, a gated squared ReLU in channels, token shift."""
    return _recipe(Part("rwkv4"), Part("rwkv4", expand=expand)).replace(embedding="rwkv4")


@register(
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
    mixer = Part("rwkv5", head_size=head_size, dim_att=dim_att, head_size_divisor=head_size_divisor)
    return _recipe(mixer, Part("rwkv5", expand=expand), 1 if dim_att else max(1, head_size))


@register(
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
        "rwkv6",
        head_size=head_size,
        dim_att=dim_att,
        mix_lora=mix_lora,
        decay_lora=decay_lora,
        head_size_divisor=head_size_divisor,
    )
    return _recipe(mixer, Part("rwkv6", expand=expand), 1 if dim_att else max(1, head_size))


@register(
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
        "rwkv7",
        head_size=head_size,
        decay_lora=decay_lora,
        a_lora=a_lora,
        v_lora=v_lora,
        gate_lora=gate_lora,
        head_size_divisor=head_size_divisor,
    )
    return _recipe(mixer, Part("rwkv7", expand=expand), max(1, head_size))


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
