"""TODO based."""

from zoo.architectures import register
from zoo.layers.local_attention import LocalAttention
from zoo.mixers.based import BaseConv, Based
from zoo.types import Part, Recipe


@register(
    family="fast weights and matrix states",
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
    convolution = Part(BaseConv, kernel_size=kernel_size)
    attention = Part(Based, heads=heads, feature_dim=feature_dim)
    local = Part(LocalAttention, heads=heads, window=window)
    return Recipe(
        mixer=(convolution, attention, local, convolution, convolution),
        channel=Part("glu", activation="silu", expand=2.0),
        residual="pre",
        norm="rms",
        depth=5,
        width_multiple=heads,
    )
