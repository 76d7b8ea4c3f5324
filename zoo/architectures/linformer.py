"""TODO linformer."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.linformer import Linformer
from zoo.types import Part, Recipe


@register(
    family="efficient attention",
    paper="Wang et al. 2020, Linformer: Self-Attention with Linear Complexity, arXiv:2006.04768",
    source="https://github.com/facebookresearch/fairseq (examples/linformer)",
    deviations=(
        "layerwise sharing (one E for all layers) is not offered: a mixer owns its parameters",
        "k is 64 by default, or the length where that is less; the paper uses 128 and 256 for n = 512",
        "residual type, GELU and initialisation (but for E and F, which follow the official code) are pre_ln's",
    ),
)
def linformer(
    *, heads: int = 4, k: int | None = None, sharing: Literal["none", "headwise", "key_value"] = "headwise"
) -> Recipe:
    """Transformer that attends to k learned summaries of its keys and values; never causal."""
    return Recipe(
        mixer=Part(Linformer, heads=heads, k=k, sharing=sharing),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )
