"""TODO longformer."""

from zoo.architectures import register
from zoo.mixers.longformer import Longformer
from zoo.types import Part, Recipe


@register(
    family="efficient attention",
    paper="Beltagy et al. 2020, Longformer: The Long-Document Transformer, arXiv:2004.05150",
    source="https://github.com/allenai/longformer; transformers, models/longformer",
    deviations=(
        "the window is counted as transformers does, both sides together without the query; allenai/longformer counts "
        "one side. It is 64 by default, where the models have 512",
        "the first tokens are the global ones; the official task models also choose others (all tokens of a question)",
        "causal: one side of the window and no global tokens, as the paper's language models and the official "
        "autoregressive=True; windows do not grow from layer to layer, and there is no dilation",
        "global projections start as copies of the local ones (paper); transformers draws them apart",
        "a masked query sees itself instead of giving zeros",
        "residual type, GELU and initialisation are pre_ln's",
    ),
)
def longformer(*, heads: int = 4, window: int | None = None, global_tokens: int = 1) -> Recipe:
    """Transformer with a sliding window and a few global tokens that see, and are seen by, all others."""
    return Recipe(
        mixer=Part(Longformer, heads=heads, window=window, global_tokens=global_tokens),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )
