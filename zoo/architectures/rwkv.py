"""RWKV: recurrent networks that train like transformers."""

from zoo.registry import register
from zoo.terms import Part, Recipe


@register(
    paper="Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era, arXiv:2305.13048, sections 3 and 4",
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v4/src/model.py, RWKV-v4/cuda/wkv_cuda.cu)",
    deviations=(
        "no head-QK term (a copying attention the official code can add to the logits)",
        "at depth 1 the ramps over depth take layer 0's values, where the official code divides by zero",
    ),
)
def rwkv4() -> Recipe:
    """RWKV-4: attention with exponentially decaying weights in time, a gated squared ReLU in channels, token shift."""
    return Recipe(
        mixer=Part("rwkv4"),
        channel=Part("rwkv4"),
        wiring="pre",
        norm="layer",
        positions="none",
        embedding="rwkv4",
        head="rwkv4",
    )
